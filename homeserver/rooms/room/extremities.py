"""The forward extremities of a room, which the next event follows, and the state after them.

Spec: https://spec.matrix.org/v1.19/server-server-api/#pdus
"""

from collections.abc import Collection, Iterable

import msgspec

from homeserver.rooms.events.stored_event import StoredEvent

MAX_EXTREMITIES = 10
"""The number of branches that one local event joins. A room may have more."""

MAX_BRANCHES = 100
"""The number of branches up to which none is pruned: see `Branches`."""


class ForwardExtremities(msgspec.Struct, frozen=True):
    """The forward extremities, and the root of the current state: their states, resolved."""

    events: tuple[StoredEvent, ...]
    root: bytes

    @property
    def is_wide(self) -> bool:
        """Whether there are more branches than one local event joins."""
        return len(self.events) > MAX_EXTREMITIES

    @property
    def topological_depth(self) -> int:
        """The greatest depth of an extremity, and so of all events in the timeline."""
        return max((stored.topological_depth for stored in self.events), default=0)

    def json_beside(self, newest: StoredEvent) -> str | None:
        """The event ids of all extremities, as stored with the newest event of the timeline;
        `None` if that is the only one.
        """
        return None if self.events == (newest,) else self.all_json

    @property
    def all_json(self) -> str:
        """The event ids of all extremities, as stored if the newest event is not one."""
        ids = [stored.event.event_id for stored in self.events]
        return msgspec.json.encode(ids).decode()

    def followed_by(
        self, stored: StoredEvent, ancestors: Collection[str]
    ) -> tuple[StoredEvent, ...]:
        """The extremities after an event that has the events with these ids as `ancestors`."""
        rest = [other for other in self.events if other.event.event_id not in ancestors]
        return (*rest, stored)

    def begins_with_gap(self, backward_extremities: Collection[str]) -> bool:
        """Whether the next visible event follows a pending redaction that came after a gap."""
        return any(
            stored.is_redaction_pending
            and any(each in backward_extremities for each in stored.event.prev_event_ids)
            for stored in self.events
        )


def by_depth(extremities: Iterable[StoredEvent]) -> list[StoredEvent]:
    """The same events, the deepest first."""
    return sorted(extremities, key=lambda stored: stored.topological_depth, reverse=True)


def parse_extremities(json: str) -> list[str]:
    """The event ids of `json_beside`."""
    return msgspec.json.decode(json, type=list[str])

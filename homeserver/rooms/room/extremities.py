"""Where the next event of a room attaches: its forward extremities, and the state after them.

Spec: https://spec.matrix.org/v1.19/server-server-api/#pdus
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import msgspec

from homeserver.rooms.events.stored_event import StoredEvent

MAX_EXTREMITIES = 10
"""How many branches one event of ours joins. That is no bound on those that a room has."""

MAX_BRANCHES = 100
"""How many branches are kept apart whether the current state needs them or not: see `Branches`."""


@dataclass(frozen=True, slots=True)
class ForwardExtremities:
    """The forward extremities, and the root of the current state: their states, resolved."""

    events: tuple[StoredEvent, ...]
    root: bytes

    @property
    def is_wide(self) -> bool:
        """Whether there are more branches than one event of ours joins."""
        return len(self.events) > MAX_EXTREMITIES

    @property
    def topological_depth(self) -> int:
        """The greatest height of an extremity, and so of all events in the timeline."""
        return max((stored.topological_depth for stored in self.events), default=0)

    @property
    def extremities_json(self) -> str | None:
        """The event ids of all extremities, as stored beside the newest; `None` if it is alone."""
        return None if len(self.events) == 1 else self.all_json

    @property
    def all_json(self) -> str:
        """The event ids of all extremities, as stored where the newest event is none."""
        ids = [stored.event.event_id for stored in self.events]
        return msgspec.json.encode(ids).decode()

    def followed_by(self, stored: StoredEvent, behind: Collection[str]) -> tuple[StoredEvent, ...]:
        """The extremities once an event has come that has the events `behind` in its past."""
        rest = [other for other in self.events if other.event.event_id not in behind]
        return (*rest, stored)

    def begins_with_gap(self, gaps: Collection[str]) -> bool:
        """Whether what clients see next follows something withheld that came after a gap."""
        return any(
            stored.is_redaction_pending
            and any(each in gaps for each in stored.event.prev_event_ids)
            for stored in self.events
        )


def by_depth(extremities: Iterable[StoredEvent]) -> list[StoredEvent]:
    """The same events, the deepest first."""
    return sorted(extremities, key=lambda stored: stored.topological_depth, reverse=True)


def parse_extremities(json: str) -> list[str]:
    """The event ids of `extremities_json`."""
    return msgspec.json.decode(json, type=list[str])

"""Facts of rooms, as the log publishes them: what happened, and what it made of the current state.

Where the event graph has no forks a state event becomes the current one of its key, and that is
all. Where branches meet, or state of another server arrives, one event can bring several others
back into the state, or take them out of it, and need not be part of it itself. So readers go by
`changes`, never by the event.

Spec: https://spec.matrix.org/v1.19/server-server-api/#room-state-resolution
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from homeserver.protocol.event_types import MEMBER
from homeserver.protocol.room_versions import RoomVersion
from homeserver.rooms.events.stored_event import StoredEvent

StateKey = tuple[str, str]
Changes = Mapping[StateKey, StoredEvent | None]
"""What became current, by (type, state key); `None` where the state has no such entry any more."""

NO_CHANGES: Changes = MappingProxyType({})
_NO_GAPS: Mapping[str, int] = MappingProxyType({})


def _no_changes() -> Changes:
    return NO_CHANGES


def _no_gaps() -> Mapping[str, int]:
    return _NO_GAPS


@dataclass(frozen=True, slots=True)
class StateChanged:
    """The current state of a room, whose root is `root` now, changed.

    `is_fork` tells that this is not simply the state after the newest event: what lies on the other
    side of this position must be compared by the states there, not by the events in between.
    `backward_extremities` are events of the graph that are not here from now on, with the height of
    what follows them.
    """

    position: int
    room_nid: int
    root: bytes
    changes: Changes = field(default_factory=_no_changes)
    is_fork: bool = False
    backward_extremities: Mapping[str, int] = field(default_factory=_no_gaps)

    def members(self) -> Iterator[tuple[str, str, StoredEvent | None]]:
        """Users whose member events changed: user id, membership from now on, and the event."""
        for (event_type, user_id), stored in self.changes.items():
            if event_type == MEMBER:
                yield user_id, membership_of(stored), stored


@dataclass(frozen=True, slots=True, kw_only=True)
class EventAppended(StateChanged):
    """An event entered the timeline of a room. `redacts` is the event that it redacted.

    `should_send` tells that this server is the one to tell the others of it, `is_last` that it
    comes after all events before it, in the graph as in the log, `is_after_gap` that the timeline
    is broken before it. `version` comes with the first event of a room that is new here.
    """

    stored: StoredEvent
    redacts: StoredEvent | None = None
    should_send: bool = True
    is_last: bool = True
    is_after_gap: bool = False
    version: RoomVersion | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RedactionPending(StateChanged):
    """A redaction entered the graph that no client may see, for now or for ever.

    `should_send` is as above. If its target comes, `EventAppended` tells of it.
    """

    stored: StoredEvent
    should_send: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomUnPartialStated(StateChanged):
    """The state of a room is whole, and what came meanwhile was judged anew.

    `withdrawn` are the numbers of events that are in no timeline any more.
    """

    withdrawn: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class PartialRoomLeft:
    """Nobody of ours is in a room any more that was entered without its members by a join."""

    position: int
    room: int
    join_id: str


@dataclass(frozen=True, slots=True)
class OutOfRoomMembershipChanged:
    """A user's membership in a room that this server is not in changed."""

    position: int
    room: int
    user_id: str
    membership: str
    stored: StoredEvent


@dataclass(frozen=True, slots=True)
class EventsStored:
    """Events were stored that no sync shows: outliers, refused ones, and those of the past.

    `backward_extremities` are the events before those of the past that are not here, with the
    height of the latter. `redacts` is the event that one of the past redacted.
    """

    position: int
    room: int
    events: Sequence[StoredEvent]
    backward_extremities: Mapping[str, int] = field(default_factory=_no_gaps)
    redacts: StoredEvent | None = None


def membership_of(stored: StoredEvent | None) -> str:
    """The membership that a member event gives; `leave` where there is none."""
    membership = None if stored is None else stored.event.content.get("membership")
    return membership if isinstance(membership, str) else "leave"

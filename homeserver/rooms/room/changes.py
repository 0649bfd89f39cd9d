"""Changes of rooms, as the log publishes them: what happened, and what became current state.

Where the event graph has no forks, a state event becomes the current one of its key, and nothing
else changes. Where branches meet, or state of another server arrives, one event can bring several
others back into the state, or remove them from it, and need not be part of it itself. So log
subscribers use `changes`, never the event.

Spec: https://spec.matrix.org/v1.19/server-server-api/#room-state-resolution
"""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec

from homeserver.protocol.event_types import MEMBER
from homeserver.protocol.room_versions import RoomVersion
from homeserver.rooms.events.event_store import EventStore
from homeserver.rooms.events.stored_event import StoredEvent

StateKey = tuple[str, str]
Changes = Mapping[StateKey, StoredEvent | None]
"""New current events, by (type, state key); `None` if the state has no such entry any more."""

NO_CHANGES: Changes = MappingProxyType({})
NO_EXTREMITIES: Mapping[str, int] = MappingProxyType({})


class RedactedEvent(NamedTuple):
    """The event that a redaction redacted, as a value: `EventStore` has its object, if any.

    `event_nid` and `position` are those of the `StoredEvent`, `type` and `state_key` its own.
    """

    event_nid: int
    position: int | None
    type: str
    state_key: str | None

    @classmethod
    def of(cls, stored: StoredEvent) -> "RedactedEvent":
        """The value for an event that is redacted now."""
        event = stored.event
        return cls(stored.event_nid, stored.position, event.type, event.state_key)


class StateChanged(msgspec.Struct, frozen=True):
    """The current state of a room changed; its root is now `root`.

    `is_fork` says that this is not simply the state after the newest event: to compare states on
    both sides of this position, the events in between do not suffice. `backward_extremities` are
    additional ones: missing events, with the depth of the events that follow them.
    """

    position: int
    room_nid: int
    root: bytes
    changes: Changes = NO_CHANGES
    is_fork: bool = False
    backward_extremities: Mapping[str, int] = NO_EXTREMITIES

    def members(self) -> Iterator[tuple[str, str, StoredEvent | None]]:
        """Users whose member events changed: user id, membership from now on, and the event."""
        for (event_type, user_id), stored in self.changes.items():
            if event_type == MEMBER:
                yield user_id, membership_of(stored), stored


class EventAppended(StateChanged, frozen=True, kw_only=True):
    """An event entered the timeline of a room. `redacts` is the event that it redacted.

    `should_send` says that this server has to send it to the others, `is_last` that it is after
    all earlier events in the graph too, not only in the log, `is_after_gap` that the timeline has a
    gap before it. `version` is set with the first event of a room that is new to this server.
    """

    stored: StoredEvent
    redacts: RedactedEvent | None = None
    should_send: bool = True
    is_last: bool = True
    is_after_gap: bool = False
    version: RoomVersion | None = None


class RedactionPending(StateChanged, frozen=True, kw_only=True):
    """A pending redaction entered the graph: no client may see it, temporarily or permanently.

    `should_send` is as above. If its target arrives, an `EventAppended` follows.
    """

    stored: StoredEvent
    should_send: bool = True


class RoomUnPartialStated(StateChanged, frozen=True, kw_only=True):
    """The full state of a room is known, and the events since the join were checked again.

    `removed` are the nids of events that were removed from the timeline.
    """

    removed: frozenset[int] = frozenset()


class PartialRoomJoined(msgspec.Struct, frozen=True):
    """A local user joined a room with partial state, by the event `join_id`.

    `servers` are as in `PartialState`. An `EventAppended` of the same commit precedes it.
    """

    position: int
    room: int
    join_id: str
    servers: tuple[str, ...]


class PartialRoomReplaced(msgspec.Struct, frozen=True):
    """A local user joined a room with full state that had partial state, or was left with it."""

    position: int
    room: int


class PartialRoomLeft(msgspec.Struct, frozen=True):
    """The last local user left a room with partial state."""

    position: int
    room: int
    join_id: str


class DirectoryVisibilityChanged(msgspec.Struct, frozen=True):
    """A room was listed in the room directory (`published`), or is no longer listed."""

    position: int
    room: int
    published: bool


class RoomAliasChanged(msgspec.Struct, frozen=True):
    """An alias of this server points to a room now, or, where `room` is `None`, to none."""

    position: int
    alias: str
    room: int | None


class RoomAliasesMoved(msgspec.Struct, frozen=True):
    """All aliases of this server that pointed to a room point to its `successor` now."""

    position: int
    room: int
    successor: int


class OutOfRoomMembershipChanged(msgspec.Struct, frozen=True):
    """A user's membership changed in a room that this server is not in."""

    position: int
    room: int
    user_id: str
    membership: str
    stored: StoredEvent


class EventsStored(msgspec.Struct, frozen=True):
    """Events were stored that no sync shows: outliers, rejected, soft-failed and backfilled ones.

    Or events were checked again, and have other states or another status now.

    `backward_extremities` are the missing events before backfilled ones, with the depth of the
    latter. `redacts` is the event that a backfilled one redacted.
    """

    position: int
    room: int
    events: Sequence[StoredEvent]
    backward_extremities: Mapping[str, int] = NO_EXTREMITIES
    redacts: RedactedEvent | None = None


class HistoryImported(msgspec.Struct, frozen=True):
    """Old messages were imported: they come right before a place of the room's history.

    `before` is the position of the first event of the timeline after that place, if there is one:
    the timeline has a gap there from now on, as before it are events that no sync shows.
    """

    position: int
    room: int
    events: Sequence[StoredEvent]
    before: int | None


class EventsPurged(msgspec.Struct, frozen=True):
    """The content of events was deleted, as if they had been redacted, but by no redaction.

    `from_timeline` says that they also left the timeline: no client gets them any more.
    """

    position: int
    room: int
    event_nids: tuple[int, ...]
    from_timeline: bool


class RoomDeleted(msgspec.Struct, frozen=True):
    """A room was deleted from this server, which does not know it any more."""

    position: int
    room: int
    room_id: str


RoomChange = (
    EventsStored
    | EventsPurged
    | HistoryImported
    | PartialRoomJoined
    | PartialRoomReplaced
    | PartialRoomLeft
    | DirectoryVisibilityChanged
)
"""What changes a room but not its current state; `room` is the nid of the room."""


def membership_of(stored: StoredEvent | None) -> str:
    """The membership that a member event gives; `leave` if there is none."""
    membership = None if stored is None else stored.event.content.get("membership")
    return membership if isinstance(membership, str) else "leave"


def with_own_events(entry: Any, events: EventStore) -> Any:
    """A published entry with this process's objects of its events, which are then as it says.

    In the process that appended the entry this is the entry itself. It is to be called once, before
    anything else shows the entry.
    """
    if isinstance(entry, StateChanged):
        return _with_own_state(_with_own_subject(entry, events), events)
    if isinstance(entry, EventsStored):
        for stored in entry.events:
            events.published(stored)
        if entry.redacts is not None:
            events.redact(entry.redacts.event_nid, entry.events[0].event)
    elif isinstance(entry, HistoryImported):
        for stored in entry.events:
            events.published(stored)
    elif isinstance(entry, EventsPurged):
        for event_nid in entry.event_nids:
            events.purge(event_nid, from_timeline=entry.from_timeline)
    elif isinstance(entry, RoomDeleted):
        events.forget_room(entry.room_id)
    elif isinstance(entry, OutOfRoomMembershipChanged):
        events.published(entry.stored)
    return entry


def _with_own_subject(entry: StateChanged, events: EventStore) -> StateChanged:
    if isinstance(entry, (EventAppended, RedactionPending)):
        stored = events.published(entry.stored)
        if isinstance(entry, EventAppended) and entry.redacts is not None:
            events.redact(entry.redacts.event_nid, stored.event)
        if stored is not entry.stored:
            return msgspec.structs.replace(entry, stored=stored)
    elif isinstance(entry, RoomUnPartialStated):
        for event_nid in entry.removed:
            events.remove_from_timeline(event_nid)
    return entry


def _with_own_state(entry: StateChanged, events: EventStore) -> StateChanged:
    changed = entry.changes.values()
    if not changed or all(each is None or events.of_entry(each) is each for each in changed):
        return entry
    own = {
        key: None if stored is None else events.of_entry(stored)
        for key, stored in entry.changes.items()
    }
    return msgspec.structs.replace(entry, changes=own)

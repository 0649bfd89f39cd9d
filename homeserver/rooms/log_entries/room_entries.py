"""The wire forms of the log entries of rooms that have events.

An entry has each of its events once, in a list, and names them by their index in it: a state event
is usually both the event that was appended and the change that it made. All events of an entry are
of one room, and so of one room version.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from homeserver.protocol.room_versions import ROOM_VERSIONS, RoomVersion
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.log_entries.event_codec import (
    StoredEventWire,
    stored_event_from_wire,
    stored_event_to_wire,
)
from homeserver.rooms.room.changes import (
    Changes,
    DirectoryVisibilityChanged,
    EventAppended,
    EventsPurged,
    EventsStored,
    HistoryImported,
    OutOfRoomMembershipChanged,
    PartialRoomJoined,
    PartialRoomLeft,
    PartialRoomReplaced,
    RedactedEvent,
    RedactionPending,
    RoomAliasChanged,
    RoomAliasesMoved,
    RoomDeleted,
    RoomUnPartialStated,
    StateChanged,
)
from homeserver.rooms.room.room_receipts import ReceiptsChanged
from homeserver.rooms.room.user_rooms import RoomForgotten
from homeserver.streams.entry_codec import EntryKind, plain_kind

_ChangeWire = tuple[str, str, int | None]  # type, state key, index of the event
_SUBJECT = 0  # the index of the event that an entry is about


class EventsWire(msgspec.Struct, array_like=True, frozen=True):
    """The events of an entry; `room_version` is `None` if there are none."""

    room_version: str | None
    events: list[StoredEventWire]


class StateChangedWire(msgspec.Struct, array_like=True, frozen=True):
    position: int
    room_nid: int
    root: bytes
    is_fork: bool
    backward_extremities: dict[str, int]
    changes: list[_ChangeWire]
    events: EventsWire


class EventAppendedWire(msgspec.Struct, array_like=True, frozen=True):
    state: StateChangedWire
    redacts: RedactedEvent | None
    should_send: bool
    is_last: bool
    is_after_gap: bool
    is_first: bool


class RedactionPendingWire(msgspec.Struct, array_like=True, frozen=True):
    state: StateChangedWire
    should_send: bool


class RoomUnPartialStatedWire(msgspec.Struct, array_like=True, frozen=True):
    state: StateChangedWire
    removed: list[int]


class OutOfRoomMembershipChangedWire(msgspec.Struct, array_like=True, frozen=True):
    position: int
    room: int
    user_id: str
    membership: str
    events: EventsWire


class EventsStoredWire(msgspec.Struct, array_like=True, frozen=True):
    position: int
    room: int
    events: EventsWire
    backward_extremities: dict[str, int]
    redacts: RedactedEvent | None


class HistoryImportedWire(msgspec.Struct, array_like=True, frozen=True):
    position: int
    room: int
    events: EventsWire
    before: int | None


def _events_to_wire(events: Sequence[StoredEvent]) -> EventsWire:
    version = events[0].event.version.identifier if events else None
    return EventsWire(version, [stored_event_to_wire(stored) for stored in events])


def _events_from_wire(wire: EventsWire) -> list[StoredEvent]:
    if wire.room_version is None:
        return []
    version = ROOM_VERSIONS[wire.room_version]
    return [stored_event_from_wire(version, each) for each in wire.events]


def _state_to_wire(entry: StateChanged, subject: Iterable[StoredEvent] = ()) -> StateChangedWire:
    events = {stored.event_nid: stored for stored in subject}
    events |= {stored.event_nid: stored for stored in entry.changes.values() if stored is not None}
    indexes = {event_nid: index for index, event_nid in enumerate(events)}
    changes: list[_ChangeWire] = [
        (*key, None if stored is None else indexes[stored.event_nid])
        for key, stored in entry.changes.items()
    ]
    return StateChangedWire(
        entry.position,
        entry.room_nid,
        entry.root,
        entry.is_fork,
        dict(entry.backward_extremities),
        changes,
        _events_to_wire(list(events.values())),
    )


def _state_from_wire(
    wire: StateChangedWire, events: Sequence[StoredEvent]
) -> tuple[int, int, bytes, Changes, bool, dict[str, int]]:
    """The fields of `StateChanged`."""
    changes: Changes = {
        (event_type, state_key): None if index is None else events[index]
        for event_type, state_key, index in wire.changes
    }
    return (
        wire.position,
        wire.room_nid,
        wire.root,
        changes,
        wire.is_fork,
        wire.backward_extremities,
    )


def _state_changed_from_wire(wire: StateChangedWire) -> StateChanged:
    return StateChanged(*_state_from_wire(wire, _events_from_wire(wire.events)))


def _event_appended_to_wire(entry: EventAppended) -> EventAppendedWire:
    return EventAppendedWire(
        _state_to_wire(entry, [entry.stored]),
        entry.redacts,
        entry.should_send,
        entry.is_last,
        entry.is_after_gap,
        entry.version is not None,
    )


def _event_appended_from_wire(wire: EventAppendedWire) -> EventAppended:
    events = _events_from_wire(wire.state.events)
    stored = events[_SUBJECT]
    version: RoomVersion = stored.event.version
    return EventAppended(
        *_state_from_wire(wire.state, events),
        stored=stored,
        redacts=wire.redacts,
        should_send=wire.should_send,
        is_last=wire.is_last,
        is_after_gap=wire.is_after_gap,
        version=version if wire.is_first else None,
    )


def _redaction_pending_to_wire(entry: RedactionPending) -> RedactionPendingWire:
    return RedactionPendingWire(_state_to_wire(entry, [entry.stored]), entry.should_send)


def _redaction_pending_from_wire(wire: RedactionPendingWire) -> RedactionPending:
    events = _events_from_wire(wire.state.events)
    return RedactionPending(
        *_state_from_wire(wire.state, events), stored=events[_SUBJECT], should_send=wire.should_send
    )


def _un_partial_stated_to_wire(entry: RoomUnPartialStated) -> RoomUnPartialStatedWire:
    return RoomUnPartialStatedWire(_state_to_wire(entry), sorted(entry.removed))


def _un_partial_stated_from_wire(wire: RoomUnPartialStatedWire) -> RoomUnPartialStated:
    fields = _state_from_wire(wire.state, _events_from_wire(wire.state.events))
    return RoomUnPartialStated(*fields, removed=frozenset(wire.removed))


def _out_of_room_to_wire(entry: OutOfRoomMembershipChanged) -> OutOfRoomMembershipChangedWire:
    return OutOfRoomMembershipChangedWire(
        entry.position, entry.room, entry.user_id, entry.membership, _events_to_wire([entry.stored])
    )


def _out_of_room_from_wire(wire: OutOfRoomMembershipChangedWire) -> OutOfRoomMembershipChanged:
    (stored,) = _events_from_wire(wire.events)
    return OutOfRoomMembershipChanged(
        wire.position, wire.room, wire.user_id, wire.membership, stored
    )


def _events_stored_to_wire(entry: EventsStored) -> EventsStoredWire:
    return EventsStoredWire(
        entry.position,
        entry.room,
        _events_to_wire(entry.events),
        dict(entry.backward_extremities),
        entry.redacts,
    )


def _events_stored_from_wire(wire: EventsStoredWire) -> EventsStored:
    events = _events_from_wire(wire.events)
    return EventsStored(wire.position, wire.room, events, wire.backward_extremities, wire.redacts)


def _imported_to_wire(entry: HistoryImported) -> HistoryImportedWire:
    events = _events_to_wire(entry.events)
    return HistoryImportedWire(entry.position, entry.room, events, entry.before)


def _imported_from_wire(wire: HistoryImportedWire) -> HistoryImported:
    return HistoryImported(wire.position, wire.room, _events_from_wire(wire.events), wire.before)


ROOM_ENTRY_KINDS: Sequence[EntryKind[Any, Any]] = (
    EntryKind(
        "event",
        1,
        EventAppended,
        EventAppendedWire,
        _event_appended_to_wire,
        _event_appended_from_wire,
    ),
    EntryKind(
        "pending_redaction",
        1,
        RedactionPending,
        RedactionPendingWire,
        _redaction_pending_to_wire,
        _redaction_pending_from_wire,
    ),
    EntryKind(
        "state",
        1,
        StateChanged,
        StateChangedWire,
        _state_to_wire,
        _state_changed_from_wire,
    ),
    EntryKind(
        "un_partial_stated",
        1,
        RoomUnPartialStated,
        RoomUnPartialStatedWire,
        _un_partial_stated_to_wire,
        _un_partial_stated_from_wire,
    ),
    EntryKind(
        "out_of_room",
        1,
        OutOfRoomMembershipChanged,
        OutOfRoomMembershipChangedWire,
        _out_of_room_to_wire,
        _out_of_room_from_wire,
    ),
    EntryKind(
        "stored",
        1,
        EventsStored,
        EventsStoredWire,
        _events_stored_to_wire,
        _events_stored_from_wire,
    ),
    EntryKind(
        "imported",
        1,
        HistoryImported,
        HistoryImportedWire,
        _imported_to_wire,
        _imported_from_wire,
    ),
    plain_kind("partial_room_joined", 1, PartialRoomJoined),
    plain_kind("partial_room_replaced", 1, PartialRoomReplaced),
    plain_kind("partial_room_left", 1, PartialRoomLeft),
    plain_kind("events_purged", 1, EventsPurged),
    plain_kind("room_deleted", 1, RoomDeleted),
    plain_kind("directory_visibility", 1, DirectoryVisibilityChanged),
    plain_kind("room_alias", 1, RoomAliasChanged),
    plain_kind("room_aliases_moved", 1, RoomAliasesMoved),
    plain_kind("forgotten", 1, RoomForgotten),
    plain_kind("receipt", 2, ReceiptsChanged),
)

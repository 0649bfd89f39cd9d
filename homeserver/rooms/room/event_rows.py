"""The rows that make an event durable, and the changes of memberships that it causes.

Names must be in memory: `NotInMemory` loads the missing ones.
"""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from homeserver.concurrency.not_in_memory import NotInMemory
from homeserver.protocol.errors import BadJson
from homeserver.protocol.event_types import CREATE_KEY, ENCRYPTION_KEY, MEMBER
from homeserver.protocol.events import Event
from homeserver.rooms.events.event_draft import sending_path
from homeserver.rooms.events.expiry_rows import expiry_rows
from homeserver.rooms.events.relation_rows import relation_rows
from homeserver.rooms.events.sticky_rows import sticky_rows
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.room.admission import AdmittedEvent
from homeserver.rooms.room.changes import Changes, StateKey, membership_of
from homeserver.rooms.room.room import Room
from homeserver.storage.database.batch import Row
from homeserver.storage.rooms.auth_edges import auth_edge_rows
from homeserver.storage.rooms.events import INSERT_CURRENT_STATE, INSERT_EVENT, PLACE_EVENT
from homeserver.storage.rooms.graph_edges import INSERT_BACKWARD_EXTREMITY, INSERT_TIMELINE_GAP
from homeserver.storage.rooms.memberships import UPSERT_MEMBERSHIP
from homeserver.storage.rooms.names import Names, is_storable
from homeserver.storage.rooms.rooms import INSERT_ROOM, SET_ENCRYPTED, SET_ROOM_TYPE


def names_of(event: Event) -> list[str]:
    """The names that an event's rows need."""
    names = [event.type, event.sender]
    if event.state_key is not None:
        names.append(event.state_key)
    return names


def check_names(names: Names, *texts: str | None) -> None:
    """Check that the nids of names are in memory, before an event with these names is built.

    Raises `NotInMemory` if they are not, and `BadJson` for names that can have no nid.
    """
    missing = []
    for text in texts:
        if text is not None:
            if "\x00" in text:
                raise BadJson("type and state_key may not contain a NUL character")
            if names.cached_nid(text) is None:
                missing.append(text)
    if missing:
        raise NotInMemory(partial(names.nids, missing))


def nid_of(names: Names, name: str) -> int:
    """The nid of a name. Raises `NotInMemory`."""
    nid = names.cached_nid(name)
    if nid is None:
        raise NotInMemory(partial(names.nids, [name]))
    return nid


def event_rows(
    names: Names, room: int, stored: StoredEvent, extremities: str | None = None
) -> list[Row]:
    """The rows of a new event; `extremities` as in `ForwardExtremities.json_beside`.

    Raises `NotInMemory`.
    """
    event, status = stored.event, stored.status
    type_nid, sender_nid = nid_of(names, event.type), nid_of(names, event.sender)
    key_nid = None if event.state_key is None else nid_of(names, event.state_key)
    _, device_id, txn_id, path = stored.transaction or (None, None, None, None)
    if path is not None and path == sending_path(event.room_id, event.type):
        path = None
    row = INSERT_EVENT.row(
        stored.event_nid,
        room,
        stored.position,
        stored.topological_depth,
        type_nid,
        sender_nid,
        key_nid,
        event.event_id,
        event.json,
        None if status.is_outlier else stored.state_before,
        None if key_nid is None or status.is_outlier else stored.state_after,
        stored.replaces,
        extremities,
        device_id,
        txn_id,
        path,
        status.rejected,
        status.soft_failed,
        None if (stored.position or 0) > 0 else stored.stored_at,
    )
    return [row, *relation_rows(stored, room, type_nid, sender_nid), *expiry_rows(stored, room)]


def auth_rows(stored: StoredEvent, cited: Iterable[int]) -> list[Row]:
    """The rows by which auth chains are followed; `cited` are the nids of its auth events."""
    return [] if stored.event.state_key is None else auth_edge_rows(stored.event_nid, cited)


def placing_rows(
    names: Names, room: int, stored: StoredEvent, extremities: str | None = None
) -> list[Row]:
    """The rows by which an outlier gets a place in the graph. Raises `NotInMemory`."""
    nids = nid_of(names, stored.event.type), nid_of(names, stored.event.sender)
    return placed_rows(room, stored, nids, extremities)


def placed_rows(
    room: int, stored: StoredEvent, names: tuple[int, int], extremities: str | None = None
) -> list[Row]:
    """As `placing_rows`, given the nids of its type and sender."""
    event, status = stored.event, stored.status
    row = PLACE_EVENT.row(
        stored.event_nid,
        stored.position,
        stored.topological_depth,
        stored.state_before,
        None if event.state_key is None else stored.state_after,
        stored.replaces,
        extremities,
        status.rejected,
        status.soft_failed,
    )
    return [row, *relation_rows(stored, room, *names), *expiry_rows(stored, room)]


def backward_extremity_rows(room: int, missing: Mapping[str, int]) -> list[Row]:
    """The rows of backward extremities, given the depths of the events that follow them."""
    return [
        INSERT_BACKWARD_EXTREMITY.row(room, event_id, depth) for event_id, depth in missing.items()
    ]


def admission_rows(names: Names, room: Room, admitted: AdmittedEvent, position: int) -> list[Row]:
    """The rows of an event that enters the graph at a position. Raises `NotInMemory`."""
    now, is_pending = admitted.extremities, admitted.effect.is_pending
    to_rows = placing_rows if admitted.was_outlier else event_rows
    extremities = None if is_pending else now.json_beside(admitted.stored)
    rows = to_rows(names, room.room_nid, admitted.stored, extremities)
    rows += membership_rows(names, room, admitted.changes, position, admitted.former)
    if admitted.is_fork or is_pending:
        extremities = now.all_json if is_pending else None
        rows.append(INSERT_CURRENT_STATE.row(room.room_nid, position, now.root, extremities))
    if admitted.is_first:
        create = admitted.changes[CREATE_KEY]
        assert create is not None
        creator = nid_of(names, create.event.sender)
        identifier = room.version.identifier
        rows.append(INSERT_ROOM.row(room.room_nid, identifier, creator))
        rows.append(SET_ROOM_TYPE.row(room.room_nid, room_type_of(create.event.content)))
        rows.append(SET_ENCRYPTED.row(room.room_nid, False))
    rows += encryption_rows(room, admitted.changes)
    if admitted.is_after_gap and not is_pending:
        rows.append(INSERT_TIMELINE_GAP.row(room.room_nid, position))
    return [
        *rows,
        *backward_extremity_rows(room.room_nid, admitted.backward_extremities),
        *sticky_rows(admitted.stored, room.room_nid, position),
        *admitted.rows,
    ]


def room_type_of(content: Mapping[str, Any]) -> str:
    """The type in the content of `m.room.create`; empty for a room without one."""
    room_type = content.get("type")
    return room_type if isinstance(room_type, str) and is_storable(room_type) else ""


def encryption_rows(room: Room, changes: Changes) -> list[Row]:
    """The row for the encryption of a room, if that is among the changes of its state."""
    if ENCRYPTION_KEY not in changes:
        return []
    return [SET_ENCRYPTED.row(room.room_nid, changes[ENCRYPTION_KEY] is not None)]


def membership_rows(
    names: Names,
    room: Room,
    changes: Changes,
    position: int,
    former: Mapping[StateKey, StoredEvent],
) -> Iterable[Row]:
    """The rows for the memberships among the changes of a state. Raises `NotInMemory`.

    `former` has the last member events of users who are no longer in the state: they are stored as
    having left, with that event.
    """
    for key, stored in changes.items():
        if key[0] != MEMBER:
            continue
        last = stored or former[key]
        yield UPSERT_MEMBERSHIP.row(
            nid_of(names, key[1]),
            room.room_nid,
            membership_of(stored),
            last.event_nid,
            position,
            nid_of(names, last.event.sender),
        )

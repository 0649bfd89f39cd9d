"""The rows that make an event durable, and what it made of the memberships of a room.

Names must be in memory: `NotInMemory` loads those that are not.
"""

from collections.abc import Iterable, Mapping
from functools import partial

from homeserver.concurrency.not_in_memory import NotInMemory
from homeserver.protocol.errors import BadJson
from homeserver.protocol.event_types import CREATE_KEY, MEMBER
from homeserver.protocol.events import Event
from homeserver.rooms.events.event_draft import sending_path
from homeserver.rooms.events.relation_rows import relation_rows
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.room.admission import AdmittedEvent
from homeserver.rooms.room.changes import Changes, StateKey, membership_of
from homeserver.rooms.room.room import Room
from homeserver.storage.database.batch import Row
from homeserver.storage.rooms.auth_edges import auth_edge_rows
from homeserver.storage.rooms.events import INSERT_CURRENT_STATE, INSERT_EVENT, PLACE_EVENT
from homeserver.storage.rooms.graph_edges import INSERT_BACKWARD_EXTREMITY, INSERT_TIMELINE_GAP
from homeserver.storage.rooms.memberships import UPSERT_MEMBERSHIP
from homeserver.storage.rooms.names import Names
from homeserver.storage.rooms.rooms import INSERT_ROOM


def names_of(event: Event) -> list[str]:
    """The names that an event's rows need."""
    names = [event.type, event.sender]
    if event.state_key is not None:
        names.append(event.state_key)
    return names


def check_names(names: Names, *texts: str | None) -> None:
    """See that the numbers of names are in memory, before an event is built that has them.

    Raises `NotInMemory` where they are not, and `BadJson` for what can have no number.
    """
    wanted = [text for text in texts if text is not None]
    if any("\x00" in text for text in wanted):
        raise BadJson("type and state_key may not contain a NUL character")
    missing = [text for text in wanted if names.cached_nid(text) is None]
    if missing:
        raise NotInMemory(partial(names.nids, missing))


def nid_of(names: Names, name: str) -> int:
    """The number of a name. Raises `NotInMemory`."""
    nid = names.cached_nid(name)
    if nid is None:
        raise NotInMemory(partial(names.nids, [name]))
    return nid


def event_rows(
    names: Names, room: int, stored: StoredEvent, extremities: str | None = None
) -> list[Row]:
    """The rows of a new event; `extremities` as in `ForwardExtremities.extremities_json`.

    Raises `NotInMemory`.
    """
    event, standing = stored.event, stored.status
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
        None if standing.is_outlier else stored.state_before,
        None if key_nid is None or standing.is_outlier else stored.state_after,
        stored.replaces,
        extremities,
        device_id,
        txn_id,
        path,
        standing.rejected,
        standing.soft_failed,
    )
    return [row, *relation_rows(stored, room, type_nid, sender_nid)]


def auth_rows(stored: StoredEvent, cited: Iterable[int]) -> list[Row]:
    """The rows by which auth chains are followed; `cited` are the numbers of its auth events."""
    return [] if stored.event.state_key is None else auth_edge_rows(stored.event_nid, cited)


def placing_rows(
    names: Names, room: int, stored: StoredEvent, extremities: str | None = None
) -> list[Row]:
    """The rows by which an outlier becomes an event with a place. Raises `NotInMemory`."""
    nids = nid_of(names, stored.event.type), nid_of(names, stored.event.sender)
    return placed_rows(room, stored, nids, extremities)


def placed_rows(
    room: int, stored: StoredEvent, names: tuple[int, int], extremities: str | None = None
) -> list[Row]:
    """The same, given the numbers of its type and sender."""
    event, standing = stored.event, stored.status
    row = PLACE_EVENT.row(
        stored.event_nid,
        stored.position,
        stored.topological_depth,
        stored.state_before,
        None if event.state_key is None else stored.state_after,
        stored.replaces,
        extremities,
        standing.rejected,
        standing.soft_failed,
    )
    return [row, *relation_rows(stored, room, *names)]


def gap_rows(room: int, gaps: Mapping[str, int]) -> list[Row]:
    """The rows of events that are not here, given the heights of those that follow them."""
    return [
        INSERT_BACKWARD_EXTREMITY.row(room, event_id, height) for event_id, height in gaps.items()
    ]


def admission_rows(names: Names, room: Room, arrival: AdmittedEvent, position: int) -> list[Row]:
    """The rows of an event that enters the graph at a position. Raises `NotInMemory`."""
    head, is_withheld = arrival.extremities, arrival.effect.is_pending
    to_rows = placing_rows if arrival.was_outlier else event_rows
    extremities = None if is_withheld else head.extremities_json
    rows = to_rows(names, room.room_nid, arrival.stored, extremities)
    rows += membership_rows(names, room, arrival.changes, position, arrival.former)
    if arrival.is_fork or is_withheld:
        extremities = head.all_json if is_withheld else None
        rows.append(INSERT_CURRENT_STATE.row(room.room_nid, position, head.root, extremities))
    if arrival.is_first:
        create = arrival.changes[CREATE_KEY]
        assert create is not None
        creator = nid_of(names, create.event.sender)
        identifier = room.version.identifier
        rows.append(INSERT_ROOM.row(room.room_nid, identifier, creator, room.published))
    if arrival.is_after_gap and not is_withheld:
        rows.append(INSERT_TIMELINE_GAP.row(room.room_nid, position))
    return [*rows, *gap_rows(room.room_nid, arrival.backward_extremities), *arrival.rows]


def membership_rows(
    names: Names,
    room: Room,
    changes: Changes,
    position: int,
    former: Mapping[StateKey, StoredEvent],
) -> Iterable[Row]:
    """The rows that follow the members among the changes of a state. Raises `NotInMemory`.

    `former` has the member events of those whom the state does not know any more: they have left,
    and their last event stands for that.
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

"""The rows that make an event durable, and what it made of the memberships of a room.

Names must be at hand: `NotAtHand` tells which are not.
"""

from collections.abc import Iterable, Mapping

from homeserver.protocol.events import Event
from homeserver.rooms.relation_rows import relation_rows
from homeserver.rooms.room import Room
from homeserver.rooms.room_facts import MEMBER, Changes, StateKey, membership_of
from homeserver.rooms.stored_event import StoredEvent
from homeserver.rooms.stores import NotAtHand
from homeserver.storage.auth_edges import auth_edge_rows
from homeserver.storage.batch import Row
from homeserver.storage.events import INSERT_EVENT, PLACE_EVENT
from homeserver.storage.memberships import UPSERT_MEMBERSHIP
from homeserver.storage.names import Names


def names_of(event: Event) -> list[str]:
    """The names that an event's rows need."""
    names = [event.type, event.sender]
    if event.state_key is not None:
        names.append(event.state_key)
    return names


def nid_of(names: Names, name: str) -> int:
    """The number of a name. Raises `NotAtHand`."""
    nid = names.cached_nid(name)
    if nid is None:
        raise NotAtHand(names=[name])
    return nid


def event_rows(
    names: Names, room: int, stored: StoredEvent, extremities: str | None = None
) -> list[Row]:
    """The rows of a new event; `extremities` as in `Head.extremities_json`. Raises `NotAtHand`."""
    event, standing = stored.event, stored.standing
    type_nid, sender_nid = nid_of(names, event.type), nid_of(names, event.sender)
    key_nid = None if event.state_key is None else nid_of(names, event.state_key)
    _, device_id, txn_id = stored.transaction or (None, None, None)
    row = INSERT_EVENT.row(
        stored.number,
        room,
        stored.position,
        stored.height,
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
        standing.rejected,
        standing.soft_failed,
    )
    return [row, *relation_rows(stored, room, type_nid, sender_nid)]


def auth_rows(stored: StoredEvent, cited: Iterable[int]) -> list[Row]:
    """The rows by which auth chains are followed; `cited` are the numbers of its auth events."""
    return [] if stored.event.state_key is None else auth_edge_rows(stored.number, cited)


def placing_rows(
    names: Names, room: int, stored: StoredEvent, extremities: str | None = None
) -> list[Row]:
    """The rows by which an outlier becomes an event with a place. Raises `NotAtHand`."""
    nids = nid_of(names, stored.event.type), nid_of(names, stored.event.sender)
    return placed_rows(room, stored, nids, extremities)


def placed_rows(
    room: int, stored: StoredEvent, names: tuple[int, int], extremities: str | None = None
) -> list[Row]:
    """The same, given the numbers of its type and sender."""
    event, standing = stored.event, stored.standing
    row = PLACE_EVENT.row(
        stored.number,
        stored.position,
        stored.height,
        stored.state_before,
        None if event.state_key is None else stored.state_after,
        stored.replaces,
        extremities,
        standing.rejected,
        standing.soft_failed,
    )
    return [row, *relation_rows(stored, room, *names)]


def membership_rows(
    names: Names,
    room: Room,
    changes: Changes,
    position: int,
    former: Mapping[StateKey, StoredEvent],
) -> Iterable[Row]:
    """The rows that follow the members among the changes of a state. Raises `NotAtHand`.

    `former` has the member events of those whom the state does not know any more: they have left,
    and their last event stands for that.
    """
    for key, stored in changes.items():
        if key[0] != MEMBER:
            continue
        last = stored or former[key]
        yield UPSERT_MEMBERSHIP.row(
            nid_of(names, key[1]),
            room.number,
            membership_of(stored),
            last.number,
            position,
            nid_of(names, last.event.sender),
        )

"""The rooms of a user: those that the user is in, is invited to, or has left.

They are kept in memory for recently seen users, and only log entries change them there.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from homeserver.concurrency.lru_cache import LruCache
from homeserver.protocol.errors import MatrixError
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.room.changes import (
    OutOfRoomMembershipChanged,
    RoomDeleted,
    StateChanged,
)
from homeserver.storage.database.database import Database
from homeserver.storage.rooms import memberships as storage
from homeserver.storage.rooms.names import Names
from homeserver.streams.log_cache import LogCache

TYPICAL_ROOMS = 20  # of a user; some are in thousands


class NotLeft(MatrixError):
    """The user has not left the room that they want to forget.

    Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidforget
    """

    errcode, status = "M_UNKNOWN", 400


class Membership(NamedTuple):
    """A user's place in a room: the event, its position in the log, and its sender."""

    membership: str
    event: int
    position: int
    sender: str
    forgotten: bool = False


class RoomForgotten(msgspec.Struct, frozen=True):
    """A user has forgotten a room that they left."""

    position: int
    user_id: str
    room: int


class _MembershipChanged(msgspec.Struct, frozen=True):
    """A user's current member event in a room changed, or was removed from the state."""

    position: int
    room: int
    membership: str
    stored: StoredEvent | None


MemberRooms = dict[int, Membership]  # by room nid


class UserRooms:
    """The memberships of each user; `capacity` users with `TYPICAL_ROOMS` each fit into memory."""

    def __init__(self, db: Database, names: Names, capacity: int) -> None:
        self._db = db
        self._names = names
        self._users: LogCache[
            str, MemberRooms, _MembershipChanged | RoomForgotten | RoomDeleted
        ] = LogCache(
            LruCache(
                "user_rooms",
                capacity * TYPICAL_ROOMS,
                size_of=lambda _, rooms: len(rooms) + TYPICAL_ROOMS // 2,
            ),
            self._load,
            _follow,
        )

    def loaded(self, user_id: str) -> MemberRooms | None:
        """The user's rooms, if they are in memory. Not to be changed."""
        return self._users.find(user_id)

    async def of(self, user_id: str) -> MemberRooms:
        """The user's rooms, which continue to follow the log. Not to be changed."""
        return await self._users.get(user_id)

    async def joined(self, user_id: str) -> list[int]:
        """The nids of the rooms that the user is joined to."""
        rooms = await self.of(user_id)
        return [number for number, place in rooms.items() if place.membership == "join"]

    def apply(self, entries: Sequence[Any]) -> None:
        """Follow the changes of memberships (called by the log)."""
        for entry in entries:
            if isinstance(entry, StateChanged):
                for user_id, membership, stored in entry.members():
                    change = _MembershipChanged(entry.position, entry.room_nid, membership, stored)
                    self._users.publish(user_id, change)
            elif isinstance(entry, OutOfRoomMembershipChanged):
                change = _MembershipChanged(
                    entry.position, entry.room, entry.membership, entry.stored
                )
                self._users.publish(entry.user_id, change)
            elif isinstance(entry, RoomDeleted):
                self._users.publish_to_all(entry)
            elif isinstance(entry, RoomForgotten):
                self._users.publish(entry.user_id, entry)

    async def _load(self, user_id: str) -> MemberRooms:
        nid = (await self._names.find_nids([user_id])).get(user_id)
        if nid is None:
            return {}
        rows = await self._db.run(storage.memberships_of, nid)
        senders = await self._names.names({sender for _, _, _, _, sender, _ in rows})
        return {
            room: Membership(membership, event, position, senders[sender], forgotten)
            for room, membership, event, position, sender, forgotten in rows
        }


def _follow(rooms: MemberRooms, change: _MembershipChanged | RoomForgotten | RoomDeleted) -> None:
    place = rooms.get(change.room)
    if isinstance(change, RoomDeleted):
        rooms.pop(change.room, None)
    elif isinstance(change, RoomForgotten):
        if place is not None and place.position < change.position:
            rooms[change.room] = place._replace(forgotten=True)
    elif change.stored is not None:
        sender = change.stored.event.sender
        rooms[change.room] = Membership(
            change.membership, change.stored.event_nid, change.position, sender
        )
    elif place is not None and place.position < change.position:
        # The state was resolved to one without the user, who has thereby left.
        rooms[change.room] = place._replace(membership=change.membership, position=change.position)

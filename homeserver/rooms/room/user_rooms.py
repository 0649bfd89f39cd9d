"""The rooms of a user: which ones they are in, are invited to, or have left.

Kept in memory for users who were seen lately, and changed there by the facts of the log alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from homeserver.concurrency.lru_cache import LruCache
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.room.changes import OutOfRoomMembershipChanged, StateChanged
from homeserver.storage.database.database import Database
from homeserver.storage.rooms import memberships as storage
from homeserver.storage.rooms.names import Names
from homeserver.streams.log_cache import LogCache


@dataclass(frozen=True, slots=True)
class Membership:
    """A user's place in a room: by which event, at which position of the log, and whose doing."""

    membership: str
    event: int
    position: int
    sender: str
    forgotten: bool = False


@dataclass(frozen=True, slots=True)
class RoomForgotten:
    """A user wants to hear no more of a room that they left."""

    position: int
    user_id: str
    room: int


@dataclass(frozen=True, slots=True)
class _Moved:
    """A user's member event in a room became another one, or there is none any more."""

    position: int
    room: int
    membership: str
    stored: StoredEvent | None


MemberRooms = dict[int, Membership]  # by room number


class UserRooms:
    """The memberships of each user; at most `capacity` users are kept in memory."""

    def __init__(self, db: Database, names: Names, capacity: int) -> None:
        self._db = db
        self._names = names
        self._users: LogCache[str, MemberRooms, _Moved | RoomForgotten] = LogCache(
            LruCache("user_rooms", capacity), self._load, _follow
        )

    def loaded(self, user_id: str) -> MemberRooms | None:
        """The user's rooms, if they are in memory. Not to be changed."""
        return self._users.find(user_id)

    async def of(self, user_id: str) -> MemberRooms:
        """The user's rooms, which go on following the log. Not to be changed."""
        return await self._users.get(user_id)

    async def joined(self, user_id: str) -> list[int]:
        """Numbers of the rooms that the user is joined to."""
        rooms = await self.of(user_id)
        return [number for number, place in rooms.items() if place.membership == "join"]

    def apply(self, facts: Sequence[Any]) -> None:
        """A reader of the log."""
        for fact in facts:
            if isinstance(fact, StateChanged):
                for user_id, membership, stored in fact.members():
                    moved = _Moved(fact.position, fact.room_nid, membership, stored)
                    self._users.publish(user_id, moved)
            elif isinstance(fact, OutOfRoomMembershipChanged):
                moved = _Moved(fact.position, fact.room, fact.membership, fact.stored)
                self._users.publish(fact.user_id, moved)
            elif isinstance(fact, RoomForgotten):
                self._users.publish(fact.user_id, fact)

    async def _load(self, user_id: str) -> MemberRooms:
        nid = (await self._names.find_nids([user_id])).get(user_id)
        if nid is None:
            return {}
        rows = await self._db.run(storage.memberships_of, nid)
        senders = await self._names.names({row.sender for row in rows})
        return {
            row.room: Membership(
                row.membership, row.event, row.position, senders[row.sender], row.forgotten
            )
            for row in rows
        }


def _follow(rooms: MemberRooms, news: _Moved | RoomForgotten) -> None:
    place = rooms.get(news.room)
    if isinstance(news, RoomForgotten):
        if place is not None and place.position < news.position:
            rooms[news.room] = replace(place, forgotten=True)
    elif news.stored is not None:
        sender = news.stored.event.sender
        rooms[news.room] = Membership(news.membership, news.stored.event_nid, news.position, sender)
    elif place is not None and place.position < news.position:
        # The state has resolved to one that does not know the user: they are out.
        rooms[news.room] = replace(place, membership=news.membership, position=news.position)

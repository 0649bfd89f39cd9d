"""The rooms of a user: those that they are in, are invited to, or have left.

They are kept in memory for recently seen users, where only entries of the log change them.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from twisted.internet.defer import Deferred

from homeserver.concurrency.deferreds import wait_for_completion
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.room.changes import OutOfRoomMembershipChanged, StateChanged
from homeserver.storage.database.database import Database
from homeserver.storage.rooms import memberships as storage
from homeserver.storage.rooms.names import Names


@dataclass(frozen=True, slots=True)
class Membership:
    """A user's place in a room: the event, its position in the log, and its sender."""

    membership: str
    event: int
    position: int
    sender: str
    forgotten: bool = False


@dataclass(frozen=True, slots=True)
class RoomForgotten:
    """A user has forgotten a room that they left."""

    position: int
    user_id: str
    room: int


@dataclass(frozen=True, slots=True)
class _Moved:
    """A user's member event in a room changed, or there is none any more."""

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
        self._capacity = capacity
        self._users: OrderedDict[str, MemberRooms] = OrderedDict()
        self._loading: dict[str, Deferred[None]] = {}
        self._missed: dict[str, list[_Moved | RoomForgotten]] = {}

    def loaded(self, user_id: str) -> MemberRooms | None:
        """The user's rooms, if they are in memory. Not to be changed."""
        rooms = self._users.get(user_id)
        if rooms is not None:
            self._users.move_to_end(user_id)
        return rooms

    async def of(self, user_id: str) -> MemberRooms:
        """The user's rooms, which continue to follow the log. Not to be changed."""
        while True:
            rooms = self.loaded(user_id)
            if rooms is not None:
                return rooms
            running = self._loading.get(user_id)
            if running is None:
                break
            await wait_for_completion(running)
        running = self._loading[user_id] = Deferred()
        missed = self._missed[user_id] = []
        try:
            rooms = await self._read(user_id)
            # What was published while the database answered may or may not be in the answer.
            for fact in missed:
                _follow(rooms, fact)
            self._users[user_id] = rooms
        finally:
            del self._loading[user_id], self._missed[user_id]
            running.callback(None)
        while len(self._users) > self._capacity:
            self._users.popitem(last=False)
        return rooms

    async def joined(self, user_id: str) -> list[int]:
        """The nids of the rooms that the user is joined to."""
        rooms = await self.of(user_id)
        return [number for number, place in rooms.items() if place.membership == "join"]

    def apply(self, facts: Sequence[Any]) -> None:
        """Follow the changes of memberships (called by the log)."""
        for fact in facts:
            if isinstance(fact, StateChanged):
                for user_id, membership, stored in fact.members():
                    self._pass_on(user_id, _Moved(fact.position, fact.room_nid, membership, stored))
            elif isinstance(fact, OutOfRoomMembershipChanged):
                moved = _Moved(fact.position, fact.room, fact.membership, fact.stored)
                self._pass_on(fact.user_id, moved)
            elif isinstance(fact, RoomForgotten):
                self._pass_on(fact.user_id, fact)

    def _pass_on(self, user_id: str, news: _Moved | RoomForgotten) -> None:
        rooms = self._users.get(user_id)
        if rooms is not None:
            _follow(rooms, news)
        elif user_id in self._missed:
            self._missed[user_id].append(news)

    async def _read(self, user_id: str) -> MemberRooms:
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

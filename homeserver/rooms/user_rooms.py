"""The rooms of a user: which ones they are in, are invited to, or have left.

Kept in memory for users who were seen lately, and changed there by the facts of the log alone.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from twisted.internet.defer import Deferred

from homeserver.rooms.room import RoomEventAppended
from homeserver.storage import memberships as storage
from homeserver.storage.database import Database
from homeserver.storage.names import Names
from homeserver.streams.waiting import joined


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


MemberRooms = dict[int, Membership]  # by room number


class UserRooms:
    """The memberships of each user; at most `capacity` users are kept in memory."""

    def __init__(self, db: Database, names: Names, capacity: int) -> None:
        self._db = db
        self._names = names
        self._capacity = capacity
        self._users: OrderedDict[str, MemberRooms] = OrderedDict()
        self._loading: dict[str, Deferred[None]] = {}
        self._missed: dict[str, list[RoomEventAppended | RoomForgotten]] = {}

    def loaded(self, user_id: str) -> MemberRooms | None:
        """The user's rooms, if they are in memory. Not to be changed."""
        rooms = self._users.get(user_id)
        if rooms is not None:
            self._users.move_to_end(user_id)
        return rooms

    async def of(self, user_id: str) -> MemberRooms:
        """The user's rooms, which go on following the log. Not to be changed."""
        while True:
            rooms = self.loaded(user_id)
            if rooms is not None:
                return rooms
            running = self._loading.get(user_id)
            if running is None:
                break
            await joined(running)
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
        """Numbers of the rooms that the user is joined to."""
        rooms = await self.of(user_id)
        return [number for number, place in rooms.items() if place.membership == "join"]

    def apply(self, facts: Sequence[Any]) -> None:
        """A reader of the log."""
        for fact in facts:
            if isinstance(fact, RoomEventAppended):
                event = fact.stored.event
                if event.type != "m.room.member" or event.state_key is None:
                    continue
                user_id = event.state_key
            elif isinstance(fact, RoomForgotten):
                user_id = fact.user_id
            else:
                continue
            rooms = self._users.get(user_id)
            if rooms is not None:
                _follow(rooms, fact)
            elif user_id in self._missed:
                self._missed[user_id].append(fact)

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


def _follow(rooms: MemberRooms, fact: RoomEventAppended | RoomForgotten) -> None:
    if isinstance(fact, RoomEventAppended):
        event = fact.stored.event
        rooms[fact.room] = Membership(
            event.content["membership"], fact.stored.number, fact.position, event.sender
        )
    elif (place := rooms.get(fact.room)) is not None and place.position < fact.position:
        rooms[fact.room] = Membership(
            place.membership, place.event, place.position, place.sender, forgotten=True
        )

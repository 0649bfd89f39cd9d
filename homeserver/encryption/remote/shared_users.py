"""Which remote users share a room with local users, now or at a position of the log.

Their servers send the changes of their device lists to this one. In a room with partial state it is
not certain who its members are, so such a room is no reason to rely on these messages.

Spec: https://spec.matrix.org/v1.19/server-server-api/#device-management
"""

from collections.abc import Collection, Iterable
from enum import Enum

from homeserver.rooms.history.member_changes import (
    NO_MEMBER_CHANGES,
    MemberChanges,
    MembershipHistory,
)
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room
from homeserver.rooms.room.user_rooms import UserRooms
from homeserver.storage.database.database import Database
from homeserver.storage.rooms.memberships import joined_rooms_of_all
from homeserver.storage.rooms.names import Names

MAX_ROOMS_READ = 100  # rooms not in memory that are examined for one user


class Sharing(Enum):
    """How certain it is that a remote user shares a room with a local one."""

    NONE = "no room that this server is in has the user as a member"
    PARTIAL = "no room but those whose members are still being fetched"
    FULL = "a room whose members are known"


class SharedUsers:
    """Finds out who shares rooms with local users."""

    def __init__(
        self,
        db: Database,
        names: Names,
        rooms: RoomRegistry,
        user_rooms: UserRooms,
        history: MembershipHistory,
    ) -> None:
        self._db = db
        self._names = names
        self._rooms = rooms
        self._user_rooms = user_rooms
        self._own_name = rooms.local_server.server_name
        self._is_local = rooms.local_server.is_local
        self._history = history

    async def sharing(self, user_id: str) -> Sharing:
        """How certain it is that a remote user shares a room with a local one."""
        found = Sharing.NONE
        for room_nid in self._in_order(await self._user_rooms.joined(user_id)):
            room = await self._rooms.by_number(room_nid)
            if room is not None and self._own_name in room.joined_servers:
                if room.partial is None:
                    return Sharing.FULL
                found = Sharing.PARTIAL
        return found

    async def fully_shared(self, user_ids: Collection[str]) -> set[str]:
        """Those of some remote users for whom `sharing` is `FULL`."""
        nids = await self._names.find_nids(user_ids)
        joined = await self._db.run(joined_rooms_of_all, list(nids.values()))
        is_shared: dict[int, bool] = {}
        found: set[str] = set()
        for user_id, nid in nids.items():
            room_nids = joined.get(nid, set())
            if any(is_shared.get(room_nid) for room_nid in room_nids):
                found.add(user_id)
                continue
            for room_nid in self._in_order(room_nids.difference(is_shared)):
                room = await self._rooms.by_number(room_nid)
                is_shared[room_nid] = (
                    room is not None
                    and self._own_name in room.joined_servers
                    and room.partial is None
                )
                if is_shared[room_nid]:
                    found.add(user_id)
                    break
        return found

    def may_be_in(self, user_id: str, room_nid: int) -> bool:
        """Whether a user is or was in a room, as far as is known without waiting."""
        room = self._rooms.loaded(room_nid)
        return room is None or room.membership(user_id) is not None

    async def shared_at(self, user_id: str, position: int) -> bool:
        """Whether a remote user certainly shared a room with a local one right after a position.

        Only the rooms that the user is in now are examined: if they have left another one since,
        that is a later event, which is asked about too.
        """
        for room_nid in self._in_order(await self._user_rooms.joined(user_id)):
            room = await self._rooms.by_number(room_nid)
            if room is None or room.partial is not None or room.full_state_at > position:
                continue
            changes = await self._changes(room, position)
            if user_id not in changes.joined and self._was_here(room, changes):
                return True
        return False

    async def was_in(self, room_nid: int, position: int) -> bool:
        """Whether a local user was joined to a room right after a position."""
        room = await self._rooms.by_number(room_nid)
        return room is not None and self._was_here(room, await self._changes(room, position))

    async def _changes(self, room: Room, position: int) -> MemberChanges:
        if room.members_changed_at <= position:
            return NO_MEMBER_CHANGES
        return await self._history.since(room, position)

    def _was_here(self, room: Room, changes: MemberChanges) -> bool:
        """Whether a local user was joined before the changes of a room's members."""
        if any(map(self._is_local, changes.left)):
            return True
        newcomers = sum(map(self._is_local, changes.joined))
        return room.joined_servers.get(self._own_name, 0) > newcomers

    def _in_order(self, room_nids: Iterable[int]) -> list[int]:
        """The rooms in memory, then some of the others."""
        in_memory: list[int] = []
        others: list[int] = []
        for room_nid in room_nids:
            is_loaded = self._rooms.loaded(room_nid) is not None
            (in_memory if is_loaded else others).append(room_nid)
        return in_memory + others[:MAX_ROOMS_READ]

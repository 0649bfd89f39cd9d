"""The rooms in which a user searches: those that they are in, or were in and have not forgotten.

A room that replaced another one includes it: who asks for the former is shown what was said in the
latter, too. Whether the user may see an event in one of the rooms is decided for each event.

Spec: https://spec.matrix.org/v1.19/client-server-api/#room_events
"""

from homeserver.protocol.event_types import CREATE_KEY
from homeserver.protocol.filters import RoomEventFilter
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.user_rooms import UserRooms
from homeserver.storage.rooms.names import Names

MAX_PREDECESSORS = 20  # of one room, that are searched with it
MAX_FOLLOWED = 50  # rooms of a filter whose predecessors are searched


class RoomScope:
    """Finds the rooms of a search."""

    def __init__(self, names: Names, rooms: RoomRegistry, user_rooms: UserRooms) -> None:
        self._names = names
        self._rooms = rooms
        self._user_rooms = user_rooms

    async def of(self, user_id: str, event_filter: RoomEventFilter) -> list[int]:
        """The nids of the rooms in which a user searches."""
        memberships = await self._user_rooms.of(user_id)
        room_nids = {nid for nid, place in memberships.items() if not place.forgotten}
        if event_filter.rooms is not None:
            named = await self._names.find_nids(event_filter.rooms)
            room_nids &= set(named.values())
            for nid in sorted(room_nids)[:MAX_FOLLOWED]:
                room_nids |= await self._predecessors(nid)
        if event_filter.not_rooms:
            room_nids -= set((await self._names.find_nids(event_filter.not_rooms)).values())
        return sorted(room_nids)

    async def _predecessors(self, room_nid: int) -> set[int]:
        """The rooms that a room replaced, one after the other."""
        found: set[int] = set()
        for _ in range(MAX_PREDECESSORS):
            predecessor = await self._predecessor(room_nid)
            if predecessor is None or predecessor in found:
                break
            found.add(predecessor)
            room_nid = predecessor
        return found

    async def _predecessor(self, room_nid: int) -> int | None:
        room = await self._rooms.by_number(room_nid)
        if room is None:
            return None
        create = (await self._rooms.current(room, [CREATE_KEY])).get(CREATE_KEY)
        predecessor = None if create is None else create.event.content.get("predecessor")
        room_id = predecessor.get("room_id") if isinstance(predecessor, dict) else None
        return await self._rooms.find_room_nid(room_id) if isinstance(room_id, str) else None

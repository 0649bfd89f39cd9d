"""Spaces and their rooms, for servers whose users look for rooms.

Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1hierarchyroomid
"""

from itertools import islice
from typing import Any

import msgspec

from federation.paths import V1
from federation.receiving.room_access import RoomAccess
from homeserver.protocol.errors import NotFound
from homeserver.rooms.discovery.space_children import RoomDescription, SpaceChildRooms
from homeserver.rooms.room.room import Room
from homeserver.web.routes import Auth, Route

MAX_CHILDREN = 200  # that are described; the asking server can ask for the others themselves


class ServerHierarchyQuery(msgspec.Struct):
    """Whether only suggested rooms are wanted."""

    suggested_only: bool = False


class HierarchyApi:
    def __init__(self, space_rooms: SpaceChildRooms, access: RoomAccess) -> None:
        self._space_rooms = space_rooms
        self._access = access

    def routes(self) -> list[Route]:
        path = f"{V1}/hierarchy/{{room_id}}"
        return [Route("GET", path, self.get_space_hierarchy, Auth.SERVER, limit="search")]

    async def get_space_hierarchy(
        self, origin: str, room_id: str, query: ServerHierarchyQuery
    ) -> dict[str, Any]:
        """A room and its children, as far as users of the asking server could get into them."""
        room = await self._space_rooms.find(room_id)
        description = None if room is None else await self._told(origin, room)
        if description is None:
            raise NotFound("There is no such room here, or your server may not know of it")
        if query.suggested_only:
            description = description.suggested()
        children, inaccessible = [], []
        for each in islice(description.children, MAX_CHILDREN):
            child = await self._space_rooms.find(each.child.room_id)
            if child is None:
                continue
            told = await self._told(origin, child)
            if told is None:
                inaccessible.append(child.room_id)
            else:
                children.append((told.suggested() if query.suggested_only else told).shown())
        return {
            "room": description.shown(),
            "children": children,
            "inaccessible_children": inaccessible,
        }

    async def _told(self, origin: str, room: Room) -> RoomDescription | None:
        description = await self._space_rooms.describe(room)
        may_know = await self._space_rooms.may_server_know(origin, room, description.summary)
        if not may_know or not await self._access.is_allowed(origin, room):
            return None
        return description

"""Previews: what a user may know of a room before joining, wherever the room is.

Of a room that this server is not in, others are asked. If none can be, what was known when this
server was there has to do.

Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1room_summaryroomidoralias
"""

from collections.abc import Sequence

import msgspec

from homeserver.rooms.discovery.room_summaries import RoomSummaries, RoomSummary
from homeserver.rooms.discovery.space_children import SpaceChildRooms
from homeserver.rooms.discovery.space_hierarchy import RemoteSpacesPort


class RoomPreviews:
    """Finds summaries of rooms for users."""

    def __init__(
        self, summaries: RoomSummaries, space_rooms: SpaceChildRooms, remote: RemoteSpacesPort
    ) -> None:
        self._summaries = summaries
        self._space_rooms = space_rooms
        self._remote = remote

    async def preview(self, user_id: str, room_id: str, via: Sequence[str]) -> RoomSummary:
        """The summary of a room that the user may know of. Raises `NotFound` for all others.

        `via` are names of servers that may be in the room.
        """
        if await self._space_rooms.find(room_id) is None:
            known = await self._space_rooms.likely_servers(user_id, room_id)
            told = await self._remote.describe(room_id, [*via, *known])
            membership = await self._space_rooms.membership(user_id, room_id)
            if told is not None and (
                membership == "knock"
                or await self._space_rooms.may_user_know(user_id, told.summary)
            ):
                return msgspec.structs.replace(told.summary, membership=membership)
        return await self._summaries.for_user(user_id, room_id)

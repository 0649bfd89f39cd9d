"""Rooms in common with another user over the API.

Spec: https://spec.matrix.org/v1.19/client-server-api/#mutual-rooms
"""

from typing import Any

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.protocol.errors import InvalidParam
from homeserver.protocol.proposals.unstable_names import (
    MUTUAL_ROOMS,
    MUTUAL_ROOMS_FROM,
    MUTUAL_ROOMS_NEXT,
)
from homeserver.rooms.discovery.mutual_rooms import MutualRooms
from homeserver.web.routes import Route

PATH = "/_matrix/client/v1/mutual_rooms"


class MutualRoomsQuery(msgspec.Struct):
    """The other user, and the page; its token has another name in the proposal."""

    user_id: str | None = None
    since: str | None = msgspec.field(name="from", default=None)
    unstable_since: str | None = msgspec.field(name=MUTUAL_ROOMS_FROM, default=None)


class MutualRoomsApi:
    def __init__(self, mutual_rooms: MutualRooms) -> None:
        self._mutual_rooms = mutual_rooms

    def routes(self) -> list[Route]:
        return [
            Route("GET", path, self.get_mutual_rooms, limit="search", cancellable=True)
            for path in (PATH, MUTUAL_ROOMS)
        ]

    async def get_mutual_rooms(self, caller: Requester, query: MutualRoomsQuery) -> dict[str, Any]:
        """The rooms that the caller shares with another user."""
        if query.user_id is None:
            # Not `MissingParam`, as elsewhere: the specification names this code.
            raise InvalidParam("The query parameter `user_id` is missing")
        page = await self._mutual_rooms.page(
            caller.user_id, query.user_id, query.since or query.unstable_since
        )
        response: dict[str, Any] = {"joined": page.room_ids, "count": page.count}
        if page.next_batch is not None:
            response["next_batch"] = response[MUTUAL_ROOMS_NEXT] = page.next_batch
        return response

"""Room aliases over the API.

Spec: https://spec.matrix.org/v1.19/client-server-api/#room-aliases
"""

from typing import Annotated

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.rooms.discovery.aliases import Aliases
from homeserver.web.addresses import network_of
from homeserver.web.request import Request
from homeserver.web.routes import Auth, Route

ALIAS = "/_matrix/client/v3/directory/room/{room_alias}"


class SetRoomAlias(msgspec.Struct):
    """The room for an alias."""

    room_id: Annotated[str, msgspec.Meta(pattern="^!")]


class RoomAliasesApi:
    def __init__(self, aliases: Aliases) -> None:
        self._aliases = aliases

    def routes(self) -> list[Route]:
        local = "/_matrix/client/v3/rooms/{room_id}/aliases"
        return [
            Route("PUT", ALIAS, self.set_room_alias, limit="settings"),
            Route("GET", ALIAS, self.get_room_id_by_alias, Auth.NONE, limit="lookup"),
            Route("DELETE", ALIAS, self.delete_room_alias, limit="settings"),
            Route("GET", local, self.get_local_aliases, limit="lookup"),
        ]

    async def set_room_alias(self, caller: Requester, room_alias: str, body: SetRoomAlias) -> None:
        """Create an alias."""
        await self._aliases.add(caller, room_alias, body.room_id)

    async def get_room_id_by_alias(
        self, room_alias: str, request: Request
    ) -> dict[str, str | list[str]]:
        """The room id of an alias, and servers in the room."""
        target = await self._aliases.resolve(room_alias, network_of(request.address))
        return {"room_id": target.room_id, "servers": target.servers}

    async def delete_room_alias(self, caller: Requester, room_alias: str) -> None:
        """Remove an alias."""
        await self._aliases.delete(caller, room_alias)

    async def get_local_aliases(self, caller: Requester, room_id: str) -> dict[str, list[str]]:
        """The local aliases of a room."""
        return {"aliases": await self._aliases.for_user(caller, room_id)}

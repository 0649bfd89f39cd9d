"""The room directory, as other servers see it.

Spec: https://spec.matrix.org/v1.19/server-server-api/#published-room-directory
"""

from typing import Any

import msgspec

from federation.paths import V1
from homeserver.protocol.errors import Forbidden
from homeserver.rooms.discovery.directory import DirectoryQuery, RoomDirectory
from homeserver.rooms.discovery.directory_search import Limit, PublicRoomsSearch
from homeserver.web.routes import Auth, Route


class ServerPublicRoomsQuery(msgspec.Struct):
    """Which page of the directory is wanted."""

    limit: Limit | None = None
    since: str | None = None
    include_all_networks: bool = False
    third_party_instance_id: str | None = None


class PublicRoomsApi:
    """`is_shown`: whether other servers may see the directory at all."""

    def __init__(self, directory: RoomDirectory, *, is_shown: bool) -> None:
        self._directory = directory
        self._is_shown = is_shown

    def routes(self) -> list[Route]:
        path = f"{V1}/publicRooms"
        return [
            Route("GET", path, self.get_public_rooms, Auth.SERVER, limit="search"),
            Route("POST", path, self.query_public_rooms, Auth.SERVER, limit="search"),
        ]

    async def get_public_rooms(self, query: ServerPublicRoomsQuery) -> dict[str, Any]:
        """A page of the directory."""
        return await self._page(
            DirectoryQuery(
                query.limit,
                query.since,
                all_networks=query.include_all_networks,
                network=query.third_party_instance_id or None,
            )
        )

    async def query_public_rooms(self, body: PublicRoomsSearch) -> dict[str, Any]:
        """Search the directory."""
        return await self._page(body.query())

    async def _page(self, query: DirectoryQuery) -> dict[str, Any]:
        if not self._is_shown:
            raise Forbidden("This server shows its room directory to its own users only")
        return (await self._directory.page(query)).body()

"""The room directory over the API.

Spec: https://spec.matrix.org/v1.19/client-server-api/#published-room-directory
"""

from typing import Any, Literal

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.rooms.discovery.directory import DirectoryQuery, RoomDirectory
from homeserver.rooms.discovery.directory_search import Limit, PublicRoomsSearch
from homeserver.rooms.discovery.network_lists import NetworkLists
from homeserver.web.routes import Auth, Route

LISTED = "/_matrix/client/v3/directory/list/room/{room_id}"
LISTED_BY_NETWORK = "/_matrix/client/v3/directory/list/appservice/{network_id}/{room_id}"
PUBLIC_ROOMS = "/_matrix/client/v3/publicRooms"


class RoomVisibility(msgspec.Struct):
    """Whether a room is in the directory."""

    visibility: Literal["private", "public"] = "public"


class PublicRoomsQuery(msgspec.Struct):
    """The page of the directory, and its server."""

    limit: Limit | None = None
    since: str | None = None
    server: str | None = None


class ServerQuery(msgspec.Struct):
    """The server of the directory."""

    server: str | None = None


class RoomDirectoryApi:
    def __init__(self, directory: RoomDirectory, networks: NetworkLists) -> None:
        self._directory = directory
        self._networks = networks

    def routes(self) -> list[Route]:
        search, query = self.get_public_rooms, self.query_public_rooms
        return [
            Route("GET", LISTED, self.get_room_visibility_on_directory, Auth.NONE, limit="lookup"),
            Route("PUT", LISTED, self.set_room_visibility_on_directory, limit="settings"),
            Route(
                "PUT",
                LISTED_BY_NETWORK,
                self.update_appservice_room_directory_visibility,
                limit="settings",
            ),
            # Not specified, but other servers have it, and bridges use it.
            Route(
                "DELETE",
                LISTED_BY_NETWORK,
                self.delete_from_appservice_room_directory,
                limit="settings",
            ),
            Route("GET", PUBLIC_ROOMS, search, Auth.OPTIONAL, limit="search"),
            Route("POST", PUBLIC_ROOMS, query, Auth.GUEST, limit="search"),
        ]

    async def get_room_visibility_on_directory(self, room_id: str) -> dict[str, str]:
        """Whether a room is in the directory."""
        listed = await self._directory.is_listed(room_id)
        return {"visibility": "public" if listed else "private"}

    async def set_room_visibility_on_directory(
        self, caller: Requester, room_id: str, body: RoomVisibility
    ) -> None:
        """Publish a room in the directory, or remove it."""
        await self._directory.set_listed(caller, room_id, body.visibility == "public")

    async def update_appservice_room_directory_visibility(
        self, caller: Requester, network_id: str, room_id: str, body: RoomVisibility
    ) -> None:
        """Publish a room in the application service's directory of a network, or remove it."""
        is_listed = body.visibility == "public"
        await self._networks.set_listed(caller, network_id, room_id, is_listed=is_listed)

    async def delete_from_appservice_room_directory(
        self, caller: Requester, network_id: str, room_id: str
    ) -> None:
        """Remove a room from the application service's directory of a network."""
        await self._networks.set_listed(caller, network_id, room_id, is_listed=False)

    async def get_public_rooms(
        self, caller: Requester | None, query: PublicRoomsQuery
    ) -> dict[str, Any]:
        """A page of the directory."""
        self._directory.check_may_look(caller)
        return await self._page(query.server, DirectoryQuery(query.limit, query.since))

    async def query_public_rooms(
        self, caller: Requester, query: ServerQuery, body: PublicRoomsSearch
    ) -> dict[str, Any]:
        """Search the directory."""
        return await self._page(query.server, body.query())

    async def _page(self, server: str | None, query: DirectoryQuery) -> dict[str, Any]:
        return (await self._directory.page_of(server, query)).body()

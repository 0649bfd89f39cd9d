"""Queries to other servers on behalf of local users: profiles, aliases, and room directories.

Responses are shown to clients, so values without the shape that clients expect are left out.

Spec: https://spec.matrix.org/v1.19/server-server-api/#querying-for-information
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any

import msgspec
from twisted.logger import Logger

from federation.paths import V1
from federation.transport.client import FederationClient
from federation.transport.errors import FederationDenied, FederationError, RemoteError
from federation.transport.lenient_lists import FewElements, NameElements
from homeserver.accounts.user_data.profiles import AVATAR_URL, DISPLAYNAME, MAX_PROFILE_BYTES
from homeserver.protocol.errors import Forbidden, MatrixError, NotFound, RemoteServerFailed
from homeserver.protocol.identifiers import (
    is_valid_room_id,
    is_valid_server_name,
    server_name_of,
)
from homeserver.protocol.json_elements import BadElement, decodable, decode_element
from homeserver.rooms.discovery.aliases import AliasTarget
from homeserver.rooms.discovery.directory import DirectoryPage, DirectoryQuery
from homeserver.rooms.discovery.room_summaries import PublicRoom

TIMEOUT_SECONDS = 15.0  # a user waits
MAX_PROFILE_RESPONSE_BYTES = 2 * MAX_PROFILE_BYTES
MAX_SERVERS = 100  # of those that an alias names

log = Logger()


class AliasResponse(msgspec.Struct):
    """Response to a query for an alias."""

    room_id: str
    servers: NameElements = []


class PublicRoomsResponse(msgspec.Struct):
    """A page of another server's directory."""

    chunk: FewElements
    next_batch: str | None = None
    prev_batch: str | None = None
    total_room_count_estimate: Annotated[int, msgspec.Meta(ge=0)] | None = None


class RemoteQueries:
    """Sends queries to other servers."""

    def __init__(self, client: FederationClient) -> None:
        self._client = client

    async def find_profile(self, user_id: str, field: str | None) -> Mapping[str, bytes]:
        """The profile of another server's user, or one field of it: names, and values as JSON.

        Raises `NotFound`, `Forbidden` and `RemoteServerFailed`, like all queries.
        """
        query = {"user_id": user_id} if field is None else {"user_id": user_id, "field": field}
        response = await self._ask(
            "GET",
            server_name_of(user_id),
            "query/profile",
            query=query,
            response_type=dict[str, msgspec.Raw],
            max_response=MAX_PROFILE_RESPONSE_BYTES,
        )
        return {name: bytes(value) for name, value in response.items() if _is_shown(name, value)}

    async def find_alias(self, alias: str) -> AliasTarget:
        """The room and servers that an alias of another server points to."""
        server = server_name_of(alias)
        response = await self._ask(
            "GET",
            server,
            "query/directory",
            query={"room_alias": alias},
            response_type=AliasResponse,
            despite_backoff=True,
        )
        if not is_valid_room_id(response.room_id):
            raise RemoteServerFailed(f"{server} returned an invalid response")
        named = decodable(response.servers[:MAX_SERVERS], str)
        return AliasTarget(response.room_id, [*filter(is_valid_server_name, named)])

    async def find_rooms(self, server: str, wanted: DirectoryQuery) -> DirectoryPage:
        """A page of another server's directory."""
        content: dict[str, Any] = {
            "limit": wanted.limit,
            "since": wanted.since,
            "include_all_networks": wanted.all_networks or None,
            "third_party_instance_id": wanted.network,
        }
        content = {name: value for name, value in content.items() if value is not None}
        conditions = {"generic_search_term": wanted.text, "room_types": wanted.room_types}
        conditions = {name: value for name, value in conditions.items() if value is not None}
        if conditions:
            content["filter"] = conditions
            request: dict[str, Any] = {"method": "POST", "content": content}
        else:
            query = {
                name: "true" if value is True else str(value) for name, value in content.items()
            }
            request = {"method": "GET", "query": query}
        response: PublicRoomsResponse = await self._ask(
            request.pop("method"),
            server,
            "publicRooms",
            response_type=PublicRoomsResponse,
            **request,
        )
        rooms = list(_shown_rooms(response.chunk))
        total = response.total_room_count_estimate
        return DirectoryPage(
            rooms, response.next_batch, response.prev_batch, len(rooms) if total is None else total
        )

    async def _ask(self, method: str, server: str, path: str, **options: Any) -> Any:
        try:
            return await self._client.request(
                method, server, f"{V1}/{path}", timeout=TIMEOUT_SECONDS, **options
            )
        except FederationError as error:
            log.info("query failed: {error}", error=error)
            raise _for_client(error) from error


def _for_client(error: FederationError) -> MatrixError:
    """The error for a client: no addresses, and no text of a server but the one that was asked."""
    if isinstance(error, RemoteError) and error.status == 404:
        return NotFound(error.error or "Not found")
    if isinstance(error, FederationDenied):
        return NotFound(f"This server may not send requests to {error.server}")
    if isinstance(error, RemoteError) and error.status == 403:
        return Forbidden(error.error or "The other server denied the query")
    return RemoteServerFailed(f"{error.server} could not be reached")


def _is_shown(name: str, value: msgspec.Raw) -> bool:
    """Whether a field of a profile is present and has the type that clients expect."""
    try:
        decoded = decode_element(value)
    except BadElement:
        return False
    if name in (DISPLAYNAME, AVATAR_URL):
        return isinstance(decoded, str)
    return decoded is not None


def _shown_rooms(chunk: Iterable[msgspec.Raw]) -> Iterable[PublicRoom]:
    """The well-formed rooms of a page."""
    for room in decodable(chunk, PublicRoom):
        if is_valid_room_id(room.room_id):
            yield room

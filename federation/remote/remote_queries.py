"""Queries to other servers, for users of this one: profiles, aliases, and room directories.

What comes back is shown to clients, so what does not have the shape that they expect is left out.

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
    """Where another server says that an alias leads."""

    room_id: str
    servers: NameElements = []


class PublicRoomsResponse(msgspec.Struct):
    """A page of another server's directory."""

    chunk: FewElements
    next_batch: str | None = None
    prev_batch: str | None = None
    total_room_count_estimate: Annotated[int, msgspec.Meta(ge=0)] | None = None


class RemoteQueries:
    def __init__(self, client: FederationClient) -> None:
        self._client = client

    async def find_profile(self, user_id: str, field: str | None) -> Mapping[str, bytes]:
        """The profile of another server's user, or one field of it: names, and values as JSON.

        Raises `NotFound`, `Forbidden` and `RemoteServerFailed`, as all of these do.
        """
        query = {"user_id": user_id} if field is None else {"user_id": user_id, "field": field}
        answer = await self._ask(
            "GET",
            server_name_of(user_id),
            "query/profile",
            query=query,
            answer=dict[str, msgspec.Raw],
            max_answer=MAX_PROFILE_RESPONSE_BYTES,
        )
        return {name: bytes(value) for name, value in answer.items() if _is_shown(name, value)}

    async def find_alias(self, alias: str) -> AliasTarget:
        """Where an alias of another server leads."""
        server = server_name_of(alias)
        answer = await self._ask(
            "GET",
            server,
            "query/directory",
            query={"room_alias": alias},
            answer=AliasResponse,
            despite_backoff=True,
        )
        if not is_valid_room_id(answer.room_id):
            raise RemoteServerFailed(f"{server} gave an answer that makes no sense")
        named = decodable(answer.servers[:MAX_SERVERS], str)
        return AliasTarget(answer.room_id, [*filter(is_valid_server_name, named)])

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
            how: dict[str, Any] = {"method": "POST", "content": content}
        else:
            query = {
                name: "true" if value is True else str(value) for name, value in content.items()
            }
            how = {"method": "GET", "query": query}
        answer: PublicRoomsResponse = await self._ask(
            how.pop("method"), server, "publicRooms", answer=PublicRoomsResponse, **how
        )
        rooms = list(_shown_rooms(answer.chunk))
        total = answer.total_room_count_estimate
        return DirectoryPage(
            rooms, answer.next_batch, answer.prev_batch, len(rooms) if total is None else total
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
    """What a user may learn of a failure: no addresses, and no words of strangers but theirs."""
    if isinstance(error, RemoteError) and error.status == 404:
        return NotFound(error.error or "Not found")
    if isinstance(error, FederationDenied):
        return NotFound(f"This server cannot ask {error.server}")
    if isinstance(error, RemoteError) and error.status == 403:
        return Forbidden(error.error or "The other server does not tell")
    return RemoteServerFailed(f"{error.server} could not be asked")


def _is_shown(name: str, value: msgspec.Raw) -> bool:
    """Whether a field of a profile is there and is what clients take it for."""
    try:
        decoded = decode_element(value)
    except BadElement:
        return False
    if name in (DISPLAYNAME, AVATAR_URL):
        return isinstance(decoded, str)
    return decoded is not None


def _shown_rooms(chunk: Iterable[msgspec.Raw]) -> Iterable[PublicRoom]:
    """The rooms of a page that are described as they should be."""
    for room in decodable(chunk, PublicRoom):
        if is_valid_room_id(room.room_id):
            yield room

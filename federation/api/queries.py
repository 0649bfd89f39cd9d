"""Queries of other servers: the public data of local users and rooms.

Spec: https://spec.matrix.org/v1.19/server-server-api/#querying-for-information
"""

from typing import Any

import msgspec

from federation.paths import V1
from homeserver.accounts.user_data.profiles import AVATAR_URL, DISPLAYNAME, Profiles
from homeserver.protocol.errors import InvalidParam, NotFound, Unrecognized
from homeserver.protocol.identifiers import InvalidIdentifier, parse_user_id
from homeserver.rooms.discovery.aliases import Aliases
from homeserver.version import VERSION
from homeserver.web.routes import Auth, Route


class ProfileQuery(msgspec.Struct):
    """A user, and the requested field of the profile, if not all."""

    user_id: str
    field: str | None = None


class RoomAliasQuery(msgspec.Struct):
    """The alias to resolve."""

    room_alias: str


class QueriesApi:
    def __init__(self, server_name: str, profiles: Profiles, aliases: Aliases) -> None:
        self._server_name = server_name
        self._profiles = profiles
        self._aliases = aliases

    def routes(self) -> list[Route]:
        query = f"{V1}/query"
        return [
            Route("GET", f"{V1}/version", self.get_version, Auth.NONE),
            Route("GET", f"{query}/profile", self.query_profile, Auth.SERVER),
            Route("GET", f"{query}/directory", self.query_room_directory, Auth.SERVER),
            Route("GET", f"{query}/{{query_type}}", self.query_info, Auth.SERVER),
        ]

    def get_version(self) -> dict[str, Any]:
        """The name and version of this server."""
        return {"server": {"name": "homeserver", "version": VERSION}}

    async def query_profile(self, origin: str, query: ProfileQuery) -> dict[str, msgspec.Raw]:
        """The profile of a local user."""
        try:
            server_name = parse_user_id(query.user_id).server_name
        except InvalidIdentifier:
            raise InvalidParam("Not a user ID") from None
        if server_name != self._server_name:
            raise InvalidParam("The user belongs to another server")
        profile = await self._profiles.get(query.user_id, query.field, origin)
        if query.field not in (None, DISPLAYNAME, AVATAR_URL, *profile):
            raise NotFound("The profile has no such field")
        return {field: msgspec.Raw(value) for field, value in profile.items()}

    async def query_room_directory(
        self, origin: str, query: RoomAliasQuery
    ) -> dict[str, str | list[str]]:
        """The room and servers that a local alias points to."""
        self._aliases.check_local(query.room_alias)
        target = await self._aliases.resolve(query.room_alias, origin)
        return {"room_id": target.room_id, "servers": target.servers}

    def query_info(self, query_type: str) -> None:
        """Any other query."""
        raise Unrecognized(f"Unknown query type {query_type}")

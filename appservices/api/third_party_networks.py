"""Third-party networks over the API.

Spec: https://spec.matrix.org/v1.19/client-server-api/#third-party-networks
"""

from typing import Any

import msgspec

from appservices.queries.third_party_networks import ThirdPartyNetworks
from homeserver.accounts.appservices.masquerading import DEVICE_PARAMETERS
from homeserver.accounts.sessions.requester import Requester
from homeserver.web.routes import Route

NETWORKS = "/_matrix/client/v3/thirdparty"
IDENTITY = ("user_id", *DEVICE_PARAMETERS)


class AliasQuery(msgspec.Struct):
    """The alias to look up."""

    alias: str


class UserQuery(msgspec.Struct):
    """The user to look up."""

    userid: str


class ThirdPartyNetworksApi:
    def __init__(self, networks: ThirdPartyNetworks) -> None:
        self._networks = networks

    def routes(self) -> list[Route]:
        protocol, location = f"{NETWORKS}/protocol", f"{NETWORKS}/location"
        user = f"{NETWORKS}/user"
        return [
            Route("GET", f"{NETWORKS}/protocols", self.get_protocols, limit="lookup"),
            Route("GET", protocol + "/{protocol}", self.get_protocol_metadata, limit="lookup"),
            Route("GET", location + "/{protocol}", self.query_location_by_protocol, limit="search"),
            Route("GET", user + "/{protocol}", self.query_user_by_protocol, limit="search"),
            Route("GET", location, self.query_location_by_alias, limit="search"),
            Route("GET", user, self.query_user_by_id, limit="search"),
        ]

    async def get_protocols(self) -> dict[str, Any]:
        """All protocols that the bridges of this server know."""
        return await self._networks.protocols()

    async def get_protocol_metadata(self, protocol: str) -> dict[str, Any]:
        """One protocol."""
        return await self._networks.protocol(protocol)

    async def query_location_by_protocol(
        self, caller: Requester, protocol: str, query: dict[str, list[str]]
    ) -> list[Any]:
        """The portal rooms of a location in a network."""
        return await self._networks.locations(protocol, _fields(caller, query), caller)

    async def query_user_by_protocol(
        self, caller: Requester, protocol: str, query: dict[str, list[str]]
    ) -> list[Any]:
        """The Matrix users of a user of a network."""
        return await self._networks.users(protocol, _fields(caller, query), caller)

    async def query_location_by_alias(self, caller: Requester, query: AliasQuery) -> list[Any]:
        """The locations in networks of a room."""
        return await self._networks.locations_of(query.alias, caller)

    async def query_user_by_id(self, caller: Requester, query: UserQuery) -> list[Any]:
        """The users of networks whom a Matrix user represents."""
        return await self._networks.users_of(query.userid, caller)


def _fields(caller: Requester, query: dict[str, list[str]]) -> dict[str, str]:
    """The parameters that are fields of the network; no access token goes to a bridge."""
    other = {"access_token"}
    if caller.appservice is not None:
        other.update(IDENTITY)
    return {name: values[-1] for name, values in query.items() if name not in other}

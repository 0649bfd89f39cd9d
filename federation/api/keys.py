"""The key API: the keys of this server, and the stored keys of others.

Its requests need no signature: to check one, the other server would have to fetch keys first.

Spec: https://spec.matrix.org/v1.19/server-server-api/#retrieving-server-keys
"""

from typing import Annotated, Any

import msgspec

from federation.keys.notary import Notary
from federation.keys.own_keys import OwnKeys
from federation.paths import KEYS
from homeserver.protocol.signing.canonical_json import encode_canonical
from homeserver.web.addresses import network_of
from homeserver.web.routes import Auth, Route

Timestamp = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]


class Criterion(msgspec.Struct):
    """The time until which the response should be valid."""

    minimum_valid_until_ts: Timestamp | None = None


class KeysQuery(msgspec.Struct):
    """The servers and keys that are requested."""

    server_keys: dict[str, dict[str, Criterion]]


class KeysApi:
    def __init__(self, own: OwnKeys, notary: Notary) -> None:
        self._own = own
        self._notary = notary

    def routes(self) -> list[Route]:
        # Servers that use older forms of these paths name a key in them.
        server, query = self.get_server_key, self.perspectives_key_query
        one = f"{KEYS}/query/{{server_name}}"
        bulk = self.bulk_perspectives_key_query
        return [
            Route("GET", f"{KEYS}/server", server, Auth.NONE),
            Route("GET", f"{KEYS}/server/{{key_id}}", server, Auth.NONE),
            Route("GET", one, query, Auth.NONE, limit="key_query"),
            Route("GET", f"{one}/{{key_id}}", query, Auth.NONE, limit="key_query"),
            Route("POST", f"{KEYS}/query", bulk, Auth.NONE, limit="key_query"),
        ]

    def get_server_key(self, key_id: str = "") -> msgspec.Raw:
        """The keys of this server, as canonical JSON: the response has the signed bytes."""
        return msgspec.Raw(encode_canonical(self._own.published()))

    async def perspectives_key_query(
        self, server_name: str, query: Criterion, request: Any, key_id: str = ""
    ) -> dict[str, Any]:
        """The keys of another server."""
        criteria = {key_id: None} if key_id else {}
        found = await self._notary.query(
            {server_name: criteria},
            address=network_of(request.address),
            valid_until=query.minimum_valid_until_ts,
        )
        return {"server_keys": found}

    async def bulk_perspectives_key_query(self, body: KeysQuery, request: Any) -> dict[str, Any]:
        """The keys of several servers."""
        wanted = {
            server_name: {key_id: one.minimum_valid_until_ts for key_id, one in keys.items()}
            for server_name, keys in body.server_keys.items()
        }
        return {
            "server_keys": await self._notary.query(wanted, address=network_of(request.address))
        }

"""Invitations by address through identity servers: look-up of a user, and invites for later users.

A look-up sends only a hash of the address; an invite must send the address itself, as the identity
server writes to it.

Spec: https://spec.matrix.org/v1.19/identity-service-api/#association-lookup
"""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Annotated

import msgspec

from homeserver.outbound.identity_servers import IdentityServerFailed, IdentityServers
from homeserver.protocol.errors import MatrixError
from homeserver.protocol.signing.unpadded_base64 import encode_base64_url_safe

SHA256 = "sha256"


class HashDetails(msgspec.Struct):
    """The parameters for hashing addresses."""

    lookup_pepper: str
    algorithms: Sequence[str]


class Mappings(msgspec.Struct):
    """Users by the hashes of their addresses; some servers also return hashes without a user."""

    mappings: Mapping[str, str | None]


class PublicKey(msgspec.Struct, omit_defaults=True):
    """A key that signs proofs of an address, and the URL to check its validity."""

    public_key: str
    key_validity_url: str | None = None


class StoredInvite(msgspec.Struct):
    """An invite that an identity server stores: the values for the room."""

    token: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-zA-Z.=_-]{1,255}$")]
    public_keys: Annotated[list[PublicKey], msgspec.Meta(min_length=1, max_length=10)]
    display_name: Annotated[str, msgspec.Meta(max_length=1_000)] = ""


class IdentityInvitations:
    """A client of identity servers, for invitations by users."""

    def __init__(self, servers: IdentityServers) -> None:
        self._servers = servers

    async def lookup(
        self, id_server: str, access_token: str, medium: str, address: str
    ) -> str | None:
        """The user who has published an address there; `None` if there is none.

        Raises `MatrixError`, the identity server's own if there is one.
        """
        try:
            return await self._lookup(id_server, access_token, medium, address)
        except MatrixError as error:
            if error.errcode != "M_INVALID_PEPPER":
                raise
        # The parameters changed between the two requests.
        return await self._lookup(id_server, access_token, medium, address)

    async def store_invite(
        self, id_server: str, access_token: str, details: Mapping[str, str]
    ) -> StoredInvite:
        """Store an invite there for the future owner of the address, who gets a message.

        Raises `MatrixError`, the identity server's own if there is one.
        """
        return await self._servers.ask(
            id_server, access_token, "store-invite", details, response_type=StoredInvite
        )

    async def is_key_valid(self, url: str, public_key: str) -> bool:
        """Whether the identity server has not revoked a key; see `IdentityServers`."""
        return await self._servers.is_key_valid(url, public_key)

    async def _lookup(
        self, id_server: str, access_token: str, medium: str, address: str
    ) -> str | None:
        hashing = await self._servers.ask(
            id_server, access_token, "hash_details", None, response_type=HashDetails
        )
        if SHA256 not in hashing.algorithms:
            raise IdentityServerFailed(
                "The identity server supports no known hash algorithm for addresses"
            )
        text = f"{address} {medium} {hashing.lookup_pepper}".encode(errors="replace")
        hashed = encode_base64_url_safe(sha256(text).digest())
        body = {"algorithm": SHA256, "pepper": hashing.lookup_pepper, "addresses": [hashed]}
        found = await self._servers.ask(
            id_server, access_token, "lookup", body, response_type=Mappings
        )
        return found.mappings.get(hashed)

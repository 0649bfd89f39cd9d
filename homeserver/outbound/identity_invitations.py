"""Invitations by address, at identity servers: who has it, and invites for who will have it.

An address that is looked up goes there as a hash only; one that is invited has to be told, as the
identity server writes to it.

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
    """How addresses are hashed."""

    lookup_pepper: str
    algorithms: Sequence[str]


class Mappings(msgspec.Struct):
    """Users by the hashes of their addresses; some servers name those whom nobody has as well."""

    mappings: Mapping[str, str | None]


class PublicKey(msgspec.Struct, omit_defaults=True):
    """A key that proofs of an address are signed with, and where to ask whether it is valid."""

    public_key: str
    key_validity_url: str | None = None


class StoredInvite(msgspec.Struct):
    """An invite that an identity server keeps: what the room is to know of it."""

    token: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-zA-Z.=_-]{1,255}$")]
    public_keys: Annotated[list[PublicKey], msgspec.Meta(min_length=1, max_length=10)]
    display_name: Annotated[str, msgspec.Meta(max_length=1_000)] = ""


class IdentityInvitations:
    """Asks identity servers about addresses, in the name of users."""

    def __init__(self, servers: IdentityServers) -> None:
        self._servers = servers

    async def lookup(
        self, id_server: str, access_token: str, medium: str, address: str
    ) -> str | None:
        """The user who has published an address there; `None` where nobody has.

        Raises `MatrixError`, that of the identity server where it has one.
        """
        try:
            return await self._lookup(id_server, access_token, medium, address)
        except MatrixError as error:
            if error.errcode != "M_INVALID_PEPPER":
                raise
        # It was changed between the two requests.
        return await self._lookup(id_server, access_token, medium, address)

    async def store_invite(
        self, id_server: str, access_token: str, details: Mapping[str, str]
    ) -> StoredInvite:
        """Leave an invite there for whoever publishes the address, who is written to.

        Raises `MatrixError`, that of the identity server where it has one.
        """
        return await self._servers.ask(
            id_server, access_token, "store-invite", details, answer=StoredInvite
        )

    async def is_key_valid(self, url: str, public_key: str) -> bool:
        """Whether a key of an identity server has not been revoked; see `IdentityServers`."""
        return await self._servers.is_key_valid(url, public_key)

    async def _lookup(
        self, id_server: str, access_token: str, medium: str, address: str
    ) -> str | None:
        hashing = await self._servers.ask(
            id_server, access_token, "hash_details", None, answer=HashDetails
        )
        if SHA256 not in hashing.algorithms:
            raise IdentityServerFailed("The identity server hashes addresses in no way known here")
        text = f"{address} {medium} {hashing.lookup_pepper}".encode(errors="replace")
        hashed = encode_base64_url_safe(sha256(text).digest())
        body = {"algorithm": SHA256, "pepper": hashing.lookup_pepper, "addresses": [hashed]}
        found = await self._servers.ask(id_server, access_token, "lookup", body, answer=Mappings)
        return found.mappings.get(hashed)

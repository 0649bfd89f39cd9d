"""Identity bindings: addresses that users have published at identity servers, through this server.

A look-up of an address there finds the user. Bindings are independent of the addresses of the
account (`third_party_ids.py`): either may exist without the other. They are stored, so that they
can be unbound.

Spec: https://spec.matrix.org/v1.19/client-server-api/#notes-on-identity-servers
"""

from collections.abc import Awaitable, Collection
from typing import Protocol

from twisted.internet.defer import ensureDeferred, gatherResults
from twisted.logger import Logger

from homeserver.protocol.errors import (
    InvalidParam,
    LimitExceeded,
    MatrixError,
    ServerNotTrusted,
)
from homeserver.protocol.identifiers import is_valid_server_name
from homeserver.protocol.third_party_ids.address_validation import ThreepidCredentials
from homeserver.protocol.third_party_ids.addresses import (
    InvalidThirdPartyId,
    canonical_address,
    is_opaque_id,
)
from homeserver.storage.accounts.identity_bindings import (
    IdentityBinding,
    delete_identity_binding,
    delete_identity_bindings_of,
    identity_bindings_of,
    insert_identity_binding,
)
from homeserver.storage.accounts.third_party_ids import third_party_ids_of
from homeserver.storage.database.database import Database

MAX_BINDINGS = 100  # of one user: each is a request when the account is deactivated
log = Logger()


class IdentityServersPort(Protocol):
    """Requests to identity servers."""

    def bind(
        self, id_server: str, access_token: str, credentials: ThreepidCredentials, user_id: str
    ) -> Awaitable[tuple[str, str]]:
        """Publish the address of a session there; returns medium and address.

        Raises `MatrixError`, with the identity server's error where it sent one.
        """

    def unbind(self, binding: IdentityBinding) -> Awaitable[bool]:
        """Unbind an address; false where the identity server does not support that.

        Raises `MatrixError`, with the identity server's error where it sent one.
        """


class IdentityBindings:
    """Binds and unbinds addresses. `trusted` are the allowed servers; all, if it is empty."""

    def __init__(
        self, db: Database, servers: IdentityServersPort, trusted: Collection[str] = ()
    ) -> None:
        self._db = db
        self._servers = servers
        self._trusted = frozenset(trusted)

    async def bind(
        self, user_id: str, id_server: str, access_token: str, credentials: ThreepidCredentials
    ) -> None:
        """Publish the address that an identity server has validated.

        Raises `ServerNotTrusted`, `InvalidParam`, and the identity server's own error.
        """
        self.check_server(id_server)
        if not is_opaque_id(credentials.sid) or not is_opaque_id(credentials.client_secret):
            raise InvalidParam("sid, client_secret: 1 to 255 characters of 0-9, a-z, A-Z and .=_-")
        if len(await self._db.run(identity_bindings_of, user_id)) >= MAX_BINDINGS:
            raise LimitExceeded(60_000, "The user has too many published addresses")
        medium, address = await self._servers.bind(id_server, access_token, credentials, user_id)
        try:
            address = canonical_address(medium, address)
        except InvalidThirdPartyId:
            log.warn("{server} published an invalid address", server=id_server)
            return
        binding = IdentityBinding(user_id, medium, address, id_server)
        await self._db.run(insert_identity_binding, binding)

    async def unbind(self, user_id: str, medium: str, address: str, id_server: str | None) -> bool:
        """Unbind a canonical address, from `id_server` or from all servers where it was published.

        False where no identity server is known, or one does not support it. Raises
        `ServerNotTrusted`, `InvalidParam`, and the identity server's own error.
        """
        if id_server is not None:
            self.check_server(id_server)
            bindings = [IdentityBinding(user_id, medium, address, id_server)]
        else:
            known = await self._db.run(identity_bindings_of, user_id)
            bindings = [one for one in known if (one.medium, one.address) == (medium, address)]
        results = [await self._unbind(binding) for binding in bindings]
        return bool(results) and all(results)

    async def unbind_quietly(
        self, user_id: str, medium: str, address: str, id_server: str | None
    ) -> bool:
        """`unbind`, where a failure of the identity server counts as a lack of support."""
        try:
            return await self.unbind(user_id, medium, address, id_server)
        except (ServerNotTrusted, InvalidParam):
            raise
        except MatrixError as error:
            log.warn("an address could not be unbound: {error}", error=error)
            return False

    async def unbind_all(self, user_id: str, id_server: str | None = None) -> bool:
        """Unbind all addresses that a user has published, when the account is deactivated.

        `id_server`, where it is given, is asked to unbind all addresses of the user. False where an
        address could not be unbound; it is forgotten nevertheless. Raises
        `ServerNotTrusted` and `InvalidParam`.
        """
        bindings = await self._db.run(identity_bindings_of, user_id)
        if id_server is not None:
            self.check_server(id_server)
            own = await self._db.run(third_party_ids_of, user_id)
            addresses = {(one.medium, one.address) for one in bindings}
            addresses |= {(one.medium, one.address) for one in own}
            bindings = [IdentityBinding(user_id, *one, id_server) for one in sorted(addresses)]
        unbinding = [ensureDeferred(self._try_unbind(binding)) for binding in bindings]
        results: list[bool] = await gatherResults(unbinding)
        await self._db.run(delete_identity_bindings_of, user_id)
        return all(results)

    def check_server(self, id_server: str) -> None:
        """Raise `InvalidParam` for an invalid name, `ServerNotTrusted` for a server not allowed."""
        if not is_valid_server_name(id_server):
            raise InvalidParam("id_server: not a host name")
        if self._trusted and id_server not in self._trusted:
            raise ServerNotTrusted("This server does not use that identity server")

    async def _try_unbind(self, binding: IdentityBinding) -> bool:
        try:
            return await self._unbind(binding)
        except MatrixError as error:
            log.warn(
                "{server} still publishes an address of {user_id}: {error}",
                server=binding.id_server,
                user_id=binding.user_id,
                error=error,
            )
            return False

    async def _unbind(self, binding: IdentityBinding) -> bool:
        done = await self._servers.unbind(binding)
        if done:
            await self._db.run(delete_identity_binding, binding)
        return done

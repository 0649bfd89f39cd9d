"""The addresses of an account, by which it can be found and its password can be reset.

Each change is logged, so that an administrator can find the user who had an address at a time.

Spec: https://spec.matrix.org/v1.19/client-server-api/#adding-account-administrative-contact-information
"""

from collections.abc import Awaitable, Callable

from twisted.logger import Logger

from homeserver.accounts.appservices.account_management import check_may_manage_account
from homeserver.accounts.sessions.requester import Requester
from homeserver.accounts.sessions.secret_tokens import new_token
from homeserver.accounts.sessions.suspension import check_not_suspended
from homeserver.accounts.third_party_ids.address_validation import AddressValidation, TokenRequest
from homeserver.concurrency.clock import Clock, now_ms
from homeserver.protocol.errors import Forbidden, InvalidParam, ThreepidInUse, ThreepidNotFound
from homeserver.protocol.third_party_ids.address_validation import ADD, ThreepidCredentials
from homeserver.protocol.third_party_ids.addresses import (
    EMAIL,
    InvalidThirdPartyId,
    canonical_address,
)
from homeserver.storage.accounts.third_party_ids import (
    ThirdPartyId,
    delete_third_party_id,
    find_third_party_id_owner,
    insert_third_party_id,
    third_party_ids_of,
)
from homeserver.storage.database.database import Database

OnEmailRemoved = Callable[[str, str], Awaitable[None]]
log = Logger()


class ThirdPartyIds:
    """Adds and removes addresses. `changes_allowed`: users may change their own.

    `on_email_removed(user_id, address)` is called after an e-mail address was removed.
    """

    def __init__(
        self,
        db: Database,
        clock: Clock,
        validation: AddressValidation,
        on_email_removed: OnEmailRemoved,
        *,
        changes_allowed: bool,
    ) -> None:
        self._db = db
        self._clock = clock
        self._validation = validation
        self._on_email_removed = on_email_removed
        self._changes_allowed = changes_allowed

    def check_allowed(self) -> None:
        """Raise `Forbidden` where only administrators change addresses."""
        if not self._changes_allowed:
            raise Forbidden("Addresses of accounts cannot be changed on this server")

    async def all_of(self, user_id: str) -> list[ThirdPartyId]:
        """The addresses of a user, oldest first."""
        return await self._db.run(third_party_ids_of, user_id)

    async def request_token(self, medium: str, address: str) -> ThreepidCredentials:
        """Send a token to an address, for a page; returns the credentials with which to `add` it.

        Raises `Forbidden`, and what `AddressValidation.request_token` raises.
        """
        self.check_allowed()
        request = TokenRequest(client_secret=new_token(), send_attempt=1)
        sid = await self._validation.request_token(ADD, medium, address, request)
        return ThreepidCredentials(sid, request.client_secret)

    async def check_addable(self, caller: Requester, credentials: ThreepidCredentials) -> None:
        """Raise `Forbidden`, `ThreepidAuthFailed` or `ThreepidInUse` unless `add` would work."""
        self.check_allowed()
        check_may_manage_account(caller)
        session = await self._validation.find_validated(ADD, None, credentials)
        owner = await self._db.run(find_third_party_id_owner, session.medium, session.address)
        if owner not in (None, caller.user_id):
            raise ThreepidInUse("The address belongs to another account")

    async def add(self, caller: Requester, credentials: ThreepidCredentials) -> None:
        """Add the address that a session has validated; raises what `check_addable` does."""
        self.check_allowed()
        check_may_manage_account(caller)
        session = await self._validation.find_validated(ADD, None, credentials)
        assert session.validated_ms is not None, "`find_validated` finds no other"
        new = ThirdPartyId(
            session.medium,
            session.address,
            caller.user_id,
            session.validated_ms,
            now_ms(self._clock),
        )
        if not await self._db.run(insert_third_party_id, new):
            raise ThreepidInUse("The address belongs to another account")
        log.info("{user_id} added {medium} {address}", **_log_fields(new))

    async def remove(self, caller: Requester, medium: str, address: str) -> str:
        """Remove an address from the caller's account; returns its canonical form.

        The address may be published at an identity server only. Raises `Forbidden`,
        `UserSuspended` and `InvalidParam`.
        """
        self.check_allowed()
        check_may_manage_account(caller)
        check_not_suspended(caller)
        address = canonical(medium, address)
        if await self._db.run(delete_third_party_id, caller.user_id, medium, address):
            log.info(
                "{user_id} removed {medium} {address}",
                user_id=caller.user_id,
                medium=medium,
                address=address,
            )
            if medium == EMAIL:
                await self._on_email_removed(caller.user_id, address)
        return address

    async def get_owner(self, medium: str, address: str) -> str:
        """The user who has a canonical address. Raises `ThreepidNotFound`."""
        owner = await self._db.run(find_third_party_id_owner, medium, address)
        if owner is None:
            raise ThreepidNotFound("No account here has this address")
        return owner


def canonical(medium: str, address: str) -> str:
    """The canonical form of an address from a client. Raises `InvalidParam`."""
    try:
        return canonical_address(medium, address)
    except InvalidThirdPartyId as error:
        raise InvalidParam(str(error)) from None


def _log_fields(address: ThirdPartyId) -> dict[str, str]:
    return {
        "user_id": address.user_id,
        "medium": address.medium,
        "address": address.address,
    }

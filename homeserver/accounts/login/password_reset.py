"""The change of a password, with the authentication that it needs.

A logged-in user gives the old password, signs in at an identity provider, or proves an address of
the account. A client without an
access token gives a password or proves an address, and the proof identifies the account.

Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3accountpassword
"""

from collections.abc import Mapping
from typing import Any

from homeserver.accounts.appservices.account_management import check_may_manage_account
from homeserver.accounts.interactive_auth.owner_flows import PASSWORD, PASSWORD_FLOWS, SSO
from homeserver.accounts.interactive_auth.third_party_stage import STAGES, proved_addresses
from homeserver.accounts.interactive_auth.user_interactive_auth import (
    Confirmable,
    UserInteractiveAuth,
    check_not_oauth,
)
from homeserver.accounts.login.password_change import PasswordChange
from homeserver.accounts.sessions.requester import Requester
from homeserver.accounts.third_party_ids.address_validation import AddressValidation
from homeserver.accounts.third_party_ids.third_party_ids import ThirdPartyIds
from homeserver.protocol.errors import Forbidden, GuestAccessForbidden


class ChangePassword(Confirmable):
    """The body of a password change."""

    new_password: str
    logout_devices: bool = True


class PasswordReset:
    """Replaces the passwords of authenticated users."""

    def __init__(
        self,
        uia: UserInteractiveAuth,
        password_change: PasswordChange,
        validation: AddressValidation,
        ids: ThirdPartyIds,
    ) -> None:
        self._uia = uia
        self._password_change = password_change
        self._validation = validation
        self._ids = ids
        self._address_flows = [[type_] for type_ in STAGES.values() if type_ in uia.stages]

    async def change(
        self, caller: Requester | None, body: ChangePassword, address: str = ""
    ) -> None:
        """Replace a password, and log out the user's other devices if requested.

        `address` is that of the client.
        Raises `WeakPassword`, `Forbidden`, `GuestAccessForbidden` and `AuthenticationNeeded`.
        """
        if caller is not None and caller.is_guest:
            raise GuestAccessForbidden("Guests have no password")
        self._password_change.check(body.new_password)
        if caller is not None and caller.appservice is not None:
            await self._set(caller, body)
            return
        check_not_oauth(caller)
        user_id = None if caller is None else caller.user_id
        attempt = await self._uia.begin("changePassword", user_id, body, address)
        flows = PASSWORD_FLOWS if user_id is None else await self._uia.find_flows(user_id)
        await attempt.confirm([*flows, *self._address_flows])
        proved = await self._proved_user(attempt.proofs)
        if user_id not in (None, proved):
            raise Forbidden("The address is that of another user")
        await self._password_change.apply(
            proved,
            attempt.body.new_password,
            logout_devices=attempt.body.logout_devices,
            but=caller,
        )
        if proved_addresses(attempt.proofs):
            # A mail is valid for one new password. A password may confirm the same request again,
            # for a client that has lost the response.
            await attempt.end()

    async def _set(self, caller: Requester, body: ChangePassword) -> None:
        """Give a user of an application service a password."""
        check_may_manage_account(caller)
        await self._password_change.apply(
            caller.user_id, body.new_password, logout_devices=body.logout_devices, but=caller
        )

    async def _proved_user(self, proofs: Mapping[str, Any]) -> str:
        """The user that the proofs identify. An address does so once, and while the user has it."""
        user_id: str | None = proofs.get(PASSWORD) or proofs.get(SSO)
        for address in proved_addresses(proofs):
            if not await self._validation.end(address.sid):
                raise Forbidden("The address was used for a new password already")
            owner = await self._ids.get_owner(address.medium, address.address)
            if user_id not in (None, owner):
                raise Forbidden("The address is that of another user")
            user_id = owner
        assert user_id is not None, "a flow was completed"
        return user_id

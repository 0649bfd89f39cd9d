"""The caller's own account over the API: identity, password, deactivation.

Spec: https://spec.matrix.org/v1.19/client-server-api/#legacy-account-management
"""

from typing import Any

from homeserver.accounts.appservices.account_management import check_may_manage_account
from homeserver.accounts.interactive_auth.user_interactive_auth import (
    Confirmable,
    UserInteractiveAuth,
)
from homeserver.accounts.login.password_reset import ChangePassword, PasswordReset
from homeserver.accounts.sessions.requester import Requester
from homeserver.accounts.status.deactivation import Deactivation
from homeserver.accounts.third_party_ids.identity_bindings import IdentityBindings
from homeserver.client_api.accounts.third_party_ids import unbind_result
from homeserver.web.addresses import network_of
from homeserver.web.request import Request
from homeserver.web.routes import Auth, Route

ACCOUNT = "/_matrix/client/v3/account"


class DeactivateAccount(Confirmable):
    erase: bool = False
    id_server: str | None = None


class AccountApi:
    def __init__(
        self,
        password_reset: PasswordReset,
        deactivation: Deactivation,
        bindings: IdentityBindings,
        uia: UserInteractiveAuth,
    ) -> None:
        self._password_reset = password_reset
        self._deactivation = deactivation
        self._bindings = bindings
        self._uia = uia

    def routes(self) -> list[Route]:
        return [
            Route("GET", f"{ACCOUNT}/whoami", self.get_token_owner, Auth.GUEST, limit="lookup"),
            Route(
                "POST",
                f"{ACCOUNT}/password",
                self.change_password,
                auth=Auth.OPTIONAL,
                limit="login",
            ),
            Route("POST", f"{ACCOUNT}/deactivate", self.deactivate_account, limit="login"),
        ]

    def get_token_owner(self, caller: Requester) -> dict[str, Any]:
        """The user and device of the caller."""
        who: dict[str, Any] = {"user_id": caller.user_id, "is_guest": caller.is_guest}
        if caller.device_id is not None:
            who["device_id"] = caller.device_id
        return who

    async def change_password(
        self, caller: Requester | None, body: ChangePassword, request: Request
    ) -> None:
        """Replace the password of the caller, or of an account by a proof of its address."""
        await self._password_reset.change(caller, body, network_of(request.address))

    async def deactivate_account(
        self, caller: Requester, body: DeactivateAccount
    ) -> dict[str, str]:
        """Deactivate the caller's account permanently."""
        check_may_manage_account(caller)
        confirmed = await self._uia.confirm("deactivateAccount", caller, body)
        unbound = await self._bindings.unbind_all(caller.user_id, confirmed.id_server)
        await self._deactivation.deactivate(caller.user_id, erase=confirmed.erase)
        return unbind_result(unbound)

"""The caller's own account over the API: who it is, its password, its end.

Spec: https://spec.matrix.org/v1.19/client-server-api/#legacy-account-management
"""

from typing import Any

from homeserver.accounts.authentication_stages import PASSWORD_FLOWS
from homeserver.accounts.caller import Caller
from homeserver.accounts.deactivation import Deactivation
from homeserver.accounts.password_change import PasswordChange
from homeserver.accounts.user_interactive_auth import Confirmable, UserInteractiveAuth
from homeserver.web.routes import Auth, Route

ACCOUNT = "/_matrix/client/v3/account"


class ChangePassword(Confirmable):
    new_password: str
    logout_devices: bool = True


class DeactivateAccount(Confirmable):
    erase: bool = False


class AccountApi:
    def __init__(
        self, password_change: PasswordChange, deactivation: Deactivation, uia: UserInteractiveAuth
    ) -> None:
        self._password_change = password_change
        self._deactivation = deactivation
        self._uia = uia

    def routes(self) -> list[Route]:
        return [
            Route("GET", f"{ACCOUNT}/whoami", self.get_token_owner, Auth.GUEST, limit="lookup"),
            Route("POST", f"{ACCOUNT}/password", self.change_password, limit="login"),
            Route("POST", f"{ACCOUNT}/deactivate", self.deactivate_account, limit="login"),
        ]

    def get_token_owner(self, caller: Caller) -> dict[str, Any]:
        """Who the caller is."""
        who: dict[str, Any] = {"user_id": caller.user_id, "is_guest": caller.is_guest}
        if caller.device_id is not None:
            who["device_id"] = caller.device_id
        return who

    async def change_password(self, caller: Caller, body: ChangePassword) -> None:
        """Replace the caller's password."""
        self._password_change.check(body.new_password)
        asked = await self._uia.confirm("changePassword", caller.user_id, body, PASSWORD_FLOWS)
        await self._password_change.apply(
            caller, asked.new_password, logout_devices=asked.logout_devices
        )

    async def deactivate_account(self, caller: Caller, body: DeactivateAccount) -> dict[str, str]:
        """Close the caller's account for good."""
        asked = await self._uia.confirm("deactivateAccount", caller.user_id, body, PASSWORD_FLOWS)
        await self._deactivation.deactivate(caller.user_id, erase=asked.erase)
        # Accounts have no addresses at identity servers that would have to be unbound.
        return {"id_server_unbind_result": "success"}

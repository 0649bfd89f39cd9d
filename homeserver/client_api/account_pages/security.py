"""The pages that change how an account is protected, or end it.

Spec: https://spec.matrix.org/v1.19/client-server-api/#oauth-20-account-management
"""

from collections.abc import Mapping

from homeserver.accounts.browser_sessions.browser_sessions import BrowserSessions
from homeserver.accounts.browser_sessions.cross_signing_reset import CrossSigningReset
from homeserver.accounts.credentials.verification import PasswordAndTokenVerifier
from homeserver.accounts.login.password_change import PasswordChange
from homeserver.accounts.status.deactivation import Deactivation
from homeserver.client_api.account_pages.visits import AccountPage, Visit
from homeserver.protocol.errors import Forbidden, InvalidParam, MatrixError
from homeserver.web.routes import Response


class PasswordAction:
    """A new password, given the present one."""

    is_sensitive = False  # the present password is asked for

    def __init__(
        self,
        page: AccountPage,
        credentials: PasswordAndTokenVerifier,
        password_change: PasswordChange,
        sessions: BrowserSessions,
    ) -> None:
        self._page = page
        self._credentials = credentials
        self._password_change = password_change
        self._sessions = sessions

    async def show(self, visit: Visit) -> Response:
        """The form."""
        return await self._show(visit, logout_devices=True)

    async def submit(self, visit: Visit, form: Mapping[str, str]) -> Response:
        """Change the password; the user stays signed in in this browser, and in no other."""
        logout_devices = "logout_devices" in form
        try:
            await self._check(visit, form)
            await self._password_change.apply(
                visit.user_id, form["new_password"], logout_devices=logout_devices
            )
        except MatrixError as error:
            return await self._show(visit, error, logout_devices=logout_devices)
        cookie = await self._sessions.open(visit.user_id, visit.request)
        outcome = "password_and_devices" if logout_devices else "password"
        return self._page.done(visit, outcome, **{"Set-Cookie": cookie})

    async def _show(
        self, visit: Visit, error: MatrixError | None = None, *, logout_devices: bool
    ) -> Response:
        has_password = await self._password_change.has_password(visit.user_id)
        return self._page.page(
            visit,
            "password",
            error=error,
            has_password=has_password,
            logout_devices=logout_devices,
        )

    async def _check(self, visit: Visit, form: Mapping[str, str]) -> None:
        new = form.get("new_password", "")
        self._password_change.check(new)
        if new != form.get("repeated_password", ""):
            raise InvalidParam("The new password and its repetition are not the same")
        try:
            await self._credentials.check_password(visit.user_id, form.get("password", ""))
        except Forbidden:
            raise Forbidden("The current password is wrong") from None


class DeactivateAction:
    """The end of an account."""

    is_sensitive = True

    def __init__(
        self, page: AccountPage, deactivation: Deactivation, sessions: BrowserSessions
    ) -> None:
        self._page = page
        self._deactivation = deactivation
        self._sessions = sessions

    async def show(self, visit: Visit) -> Response:
        """The warning."""
        return self._page.page(visit, "deactivate", erase=False)

    async def submit(self, visit: Visit, form: Mapping[str, str]) -> Response:
        """Deactivate the account permanently."""
        erase = "erase" in form
        if "understood" not in form:
            error = InvalidParam("Confirm that you understand what this does")
            return self._page.page(visit, "deactivate", error=error, erase=erase)
        await self._deactivation.deactivate(visit.user_id, erase=erase)
        cookie = await self._sessions.end(visit.request)
        return self._page.done(visit, "deactivated", **{"Set-Cookie": cookie})


class CrossSigningResetAction:
    """The permission to replace the cross-signing keys.

    Spec: https://spec.matrix.org/v1.19/client-server-api/#oauth-authentication
    """

    is_sensitive = True

    def __init__(self, page: AccountPage, reset: CrossSigningReset) -> None:
        self._page = page
        self._reset = reset

    async def show(self, visit: Visit) -> Response:
        """The question."""
        return self._page.page(visit, "cross_signing")

    async def submit(self, visit: Visit, form: Mapping[str, str]) -> Response:
        """Allow it."""
        await self._reset.allow(visit.user_id)
        return self._page.done(visit, "cross_signing")

"""Log-in: from credentials to a session.

Spec: https://spec.matrix.org/v1.19/client-server-api/#legacy-login
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from homeserver.accounts.credentials.user_identifier import (
    UserIdentifier,
    UserIdentifiers,
    parse_identifier,
)
from homeserver.accounts.credentials.verification import PasswordAndTokenVerifier
from homeserver.accounts.sessions.login_sessions import DeviceRequest, LoginSession, LoginSessions
from homeserver.protocol.appservices.appservice import Appservice
from homeserver.protocol.errors import BadJson, Exclusive, Forbidden, MatrixError, UserLocked
from homeserver.storage.accounts.users import find_user
from homeserver.storage.database.database import Database

PASSWORD = "m.login.password"
TOKEN = "m.login.token"
APPSERVICE = "m.login.application_service"


class UnknownLoginType(MatrixError):
    """The server offers no such log-in."""

    errcode, status = "M_UNKNOWN", 400


class LoginRequest(msgspec.Struct):
    """The body of a log-in. `user`, `medium` and `address` are the old form of `identifier`."""

    type: str
    identifier: dict[str, Any] | None = None
    user: str | None = None
    medium: str | None = None
    address: str | None = None
    password: str | None = None
    token: str | None = None
    device_id: str | None = None
    initial_device_display_name: str | None = None
    refresh_token: bool = False

    @property
    def device(self) -> DeviceRequest:
        """The device to log in."""
        return DeviceRequest(self.device_id, self.initial_device_display_name, self.refresh_token)

    @property
    def user_identifier(self) -> UserIdentifier:
        """The identifier of the user. Raises `BadJson`."""
        old_form = {"user": self.user, "medium": self.medium, "address": self.address}
        identifier = parse_identifier(self.identifier, old_form)
        if identifier is None:
            raise BadJson("The identifier is missing")
        return identifier


class Login:
    """Opens sessions for authenticated users.

    `sso_flows` are the flows of single sign-on. `can_confirm`: users can confirm that they want a
    login token.
    """

    def __init__(
        self,
        db: Database,
        identifiers: UserIdentifiers,
        credentials: PasswordAndTokenVerifier,
        sessions: LoginSessions,
        *,
        with_password: bool,
        can_confirm: bool,
        sso_flows: Sequence[dict[str, Any]] = (),
    ) -> None:
        self._can_confirm = can_confirm
        self._sso_flows = sso_flows
        self._db = db
        self._identifiers = identifiers
        self._credentials = credentials
        self._sessions = sessions
        self._with_password = with_password

    def flows(self, *, with_appservices: bool) -> list[dict[str, Any]]:
        """The ways to log in that this server offers, also to application services if any."""
        password = [{"type": PASSWORD}] if self._with_password else []
        token = {"type": TOKEN, "get_login_token": self._can_confirm}
        return [
            *password,
            *self._sso_flows,
            token,
            *([{"type": APPSERVICE}] if with_appservices else []),
        ]

    async def log_in(self, request: LoginRequest) -> LoginSession:
        """Open a session by password or login token.

        Raises `UnknownLoginType`, `BadJson`, `InvalidParam`, `Forbidden` and `UserLocked`.
        """
        request.device.check()
        if request.type == PASSWORD and self._with_password:
            user_id = await self._identifiers.find(request.user_identifier)
            if request.password is None:
                raise BadJson("The password is missing")
            await self._credentials.check_password(user_id, request.password)
        elif request.type == TOKEN:
            if request.token is None:
                raise BadJson("The token is missing")
            user_id = await self._credentials.redeem_token(request.token)
        else:
            raise UnknownLoginType("This server does not know the login type")
        return await self._sessions.open(user_id, request.device)

    async def log_in_for_appservice(
        self, service: Appservice, request: LoginRequest
    ) -> LoginSession:
        """Open a session of one of an application service's users.

        Raises `BadJson`, `InvalidParam`, `Exclusive` for other users, `Forbidden` for unknown ones,
        and `UserLocked`.

        Spec: https://spec.matrix.org/v1.19/client-server-api/#appservice-login
        """
        request.device.check()
        user_id = self._identifiers.of_appservice(request.user_identifier)
        if not service.covers_user(user_id):
            raise Exclusive("The user does not belong to this application service")
        user = await self._db.run(find_user, user_id)
        if user is None or user.is_deactivated:
            raise Forbidden("No such user")
        if user.is_locked:
            raise UserLocked("This account has been locked")
        return await self._sessions.open(user_id, request.device)

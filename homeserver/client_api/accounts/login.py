"""Logging in and out over the API.

Spec: https://spec.matrix.org/v1.19/client-server-api/#legacy-login
"""

from typing import Any

import msgspec

from homeserver.accounts.appservices.appservices import Appservices
from homeserver.accounts.credentials.verification import PasswordAndTokenVerifier
from homeserver.accounts.interactive_auth.user_interactive_auth import (
    Confirmable,
    UserInteractiveAuth,
)
from homeserver.accounts.login.login import APPSERVICE, Login, LoginRequest
from homeserver.accounts.sessions.access_tokens import AccessTokens
from homeserver.accounts.sessions.login_sessions import LoginSessions
from homeserver.accounts.sessions.requester import Requester
from homeserver.client_api.accounts.sessions import session_body, token_body
from homeserver.client_api.server.discovery import client_discovery
from homeserver.protocol.errors import MatrixError
from homeserver.web.request import Request
from homeserver.web.routes import Auth, Route

CLIENT = "/_matrix/client/v3"


class RefreshRequest(msgspec.Struct):
    refresh_token: str


class LoginApi:
    """`public_baseurl` is part of the response to a log-in, if it is configured."""

    def __init__(
        self,
        login: Login,
        appservices: Appservices,
        public_baseurl: str | None = None,
    ) -> None:
        self._login = login
        self._public_baseurl = public_baseurl
        self._appservices = appservices

    def routes(self) -> list[Route]:
        return [
            Route("GET", f"{CLIENT}/login", self.get_login_flows, auth=Auth.NONE, limit="lookup"),
            Route("POST", f"{CLIENT}/login", self.login, auth=Auth.NONE, limit="login"),
        ]

    async def get_login_flows(self) -> dict[str, Any]:
        """The ways to log in."""
        return {"flows": self._login.flows(with_appservices=bool(self._appservices.all))}

    async def login(self, body: LoginRequest, request: Request) -> dict[str, Any]:
        """Log in to a device."""
        if body.type == APPSERVICE:
            service = self._appservices.authenticate(request.token())
            session = await self._login.log_in_for_appservice(service, body)
        else:
            session = await self._login.log_in(body)
        response = session_body(session)
        if self._public_baseurl is not None:
            response["well_known"] = client_discovery(self._public_baseurl)
        return response


class CannotConfirm(MatrixError):
    """The user has no means to authenticate, as the capability says too."""

    errcode, status = "M_UNKNOWN", 400


class LoginTokenApi:
    """`can_confirm`: users have passwords, or sign in at an identity provider."""

    def __init__(
        self,
        uia: UserInteractiveAuth,
        credentials: PasswordAndTokenVerifier,
        *,
        can_confirm: bool,
    ) -> None:
        self._uia = uia
        self._credentials = credentials
        self._can_confirm = can_confirm

    def routes(self) -> list[Route]:
        path = "/_matrix/client/v1/login/get_token"
        return [Route("POST", path, self.generate_login_token, limit="login")]

    async def generate_login_token(self, caller: Requester, body: Confirmable) -> dict[str, Any]:
        """A token that logs in another client of the same user, once."""
        if not self._can_confirm:
            raise CannotConfirm("There is no way to confirm this without a password")
        await self._uia.confirm("generateLoginToken", caller, body, once=True)
        token = await self._credentials.issue_token(caller.user_id)
        return {"login_token": token, "expires_in_ms": self._credentials.token_life_ms}


class SessionApi:
    def __init__(self, sessions: LoginSessions, access_tokens: AccessTokens) -> None:
        self._sessions = sessions
        self._access_tokens = access_tokens

    def routes(self) -> list[Route]:
        # Locked users may log out, but do nothing else: so the handlers authenticate the caller.
        return [
            Route("POST", f"{CLIENT}/refresh", self.refresh, auth=Auth.NONE, limit="lookup"),
            Route("POST", f"{CLIENT}/logout", self.logout, auth=Auth.NONE),
            Route("POST", f"{CLIENT}/logout/all", self.logout_all, auth=Auth.NONE),
        ]

    async def refresh(self, body: RefreshRequest) -> dict[str, Any]:
        """Exchange a refresh token for new tokens."""
        return token_body(await self._sessions.refresh(body.refresh_token))

    async def logout(self, request: Request) -> None:
        """End the session that makes the request."""
        await self._sessions.close(await self._caller(request))

    async def logout_all(self, request: Request) -> None:
        """End all sessions of the user."""
        await self._sessions.close_all((await self._caller(request)).user_id)

    async def _caller(self, request: Request) -> Requester:
        return await self._access_tokens.get_caller(request.token(), request.parameters)

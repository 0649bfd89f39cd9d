"""The page for signing in.

It is shown to users who are signed in, too: a page that is to be protected sends them here when
they have last proved who they are too long ago.

Spec: https://spec.matrix.org/v1.19/client-server-api/#oauth-20-api
"""

from collections.abc import Sequence
from typing import Any, Protocol
from urllib.parse import quote, urlencode

import msgspec

from homeserver.accounts.browser_sessions.anonymous_forms import AnonymousForms
from homeserver.accounts.browser_sessions.browser_sessions import (
    ACCOUNT,
    RESET_PASSWORD,
    SIGN_IN,
    BrowserSessions,
    check_target,
    location_of,
    sign_in_location,
)
from homeserver.accounts.login.browser_login import BrowserLogin
from homeserver.client_api.account_pages.problems import problem_text
from homeserver.protocol.errors import MatrixError
from homeserver.web.browser.forms import read_form
from homeserver.web.html import Allowed, Pages
from homeserver.web.request import Request
from homeserver.web.routes import Auth, Response, Route

SSO_REDIRECT = "/_matrix/sso/redirect"


class SignInProvider(Protocol):
    """An identity provider with which users can sign in."""

    @property
    def id(self) -> str:
        """What names it in an address."""

    @property
    def name(self) -> str:
        """What its button says."""


class SignInQuery(msgspec.Struct):
    target: str = ACCOUNT


class SignInApi:
    """`providers` are offered besides the password; users with an address may reset it."""

    def __init__(
        self,
        login: BrowserLogin,
        sessions: BrowserSessions,
        forms: AnonymousForms,
        pages: Pages,
        providers: Sequence[SignInProvider],
        *,
        can_sign_up: bool,
        can_reset: bool,
    ) -> None:
        self._login = login
        self._sessions = sessions
        self._forms = forms
        self._pages = pages
        self._providers = providers
        self._can_sign_up = can_sign_up
        self._can_reset = can_reset

    def routes(self) -> list[Route]:
        return [
            Route("GET", SIGN_IN, self.show_sign_in, Auth.NONE, limit="lookup", page=True),
            Route("POST", SIGN_IN, self.submit_sign_in, Auth.NONE, limit="login", page=True),
        ]

    async def show_sign_in(self, query: SignInQuery, request: Request) -> Response:
        """The form."""
        target = check_target(query.target)
        session = await self._sessions.find(request)
        return self._page(request, target, "" if session is None else session.user_id)

    async def submit_sign_in(self, query: SignInQuery, request: Request) -> Response:
        """Sign a user in, and return to the target."""
        target = check_target(query.target)
        form = read_form(request)
        name = form.get("user", "")
        try:
            self._forms.check(request, form)
            cookie = await self._login.sign_in(name, form.get("password", ""), request)
        except MatrixError as error:
            session = await self._sessions.find(request)
            known = "" if session is None else session.user_id
            return self._page(request, target, known, name=name, error=error)
        location = self._sessions.cookies.base_path + target
        return Response(303, b"", {"Location": location, "Set-Cookie": cookie})

    def _page(
        self,
        request: Request,
        target: str,
        user_id: str,
        *,
        name: str | None = None,
        error: MatrixError | None = None,
    ) -> Response:
        token = self._forms.token_for(request)
        base = self._sessions.cookies.base_path
        return self._pages.page(
            "account/sign_in",
            status=200 if error is None else error.status,
            allowed=Allowed(form="'self'"),
            headers={**token.headers, **({} if error is None else error.headers())},
            form_token=token.value,
            problem="" if error is None else problem_text(error),
            user_id=user_id,
            user_name=user_id if name is None else name,
            with_password=self._login.with_password,
            providers=[self._button(base, each, target) for each in self._providers],
            sign_up=base + sign_in_location(target, create=True) if self._can_sign_up else "",
            reset=base + location_of(RESET_PASSWORD, target) if self._can_reset else "",
        )

    def _button(self, base: str, provider: SignInProvider, target: str) -> dict[str, Any]:
        query = urlencode({"return_to": target})
        address = f"{base}{SSO_REDIRECT}/{quote(provider.id, safe='')}?{query}"
        return {"name": provider.name, "address": address}

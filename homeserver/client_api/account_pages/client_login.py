"""Log-in to clients of the legacy API with the session of a browser.

A client that knows of the OAuth 2.0 API, but does not speak it, sends its user here as to an
identity provider. The user signs in on the pages of this server, whichever way, and the client gets
a login token after they have confirmed that they know it.

Spec: https://spec.matrix.org/v1.19/client-server-api/#oauth-20-aware-clients
"""

from collections.abc import Sequence
from urllib.parse import urlencode

from homeserver.accounts.browser_sessions.browser_sessions import (
    ACCOUNT,
    BrowserSessions,
    sign_in_location,
)
from homeserver.accounts.credentials.verification import PasswordAndTokenVerifier
from homeserver.client_api.single_sign_on.redirect_query import (
    REDIRECT,
    RedirectQuery,
)
from homeserver.protocol.single_sign_on.client_urls import (
    client_of,
    is_trusted,
    with_login_token,
)
from homeserver.web.browser.forms import read_form
from homeserver.web.html import Allowed, Pages
from homeserver.web.request import Request
from homeserver.web.routes import Auth, Response, Route

CLIENT_LOGIN = f"{ACCOUNT}/client_login"
NO_TRACES = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}


class ClientLoginApi:
    """`trusted_clients` are addresses of clients that need no confirmation."""

    def __init__(
        self,
        sessions: BrowserSessions,
        credentials: PasswordAndTokenVerifier,
        pages: Pages,
        trusted_clients: Sequence[str],
    ) -> None:
        self._sessions = sessions
        self._credentials = credentials
        self._pages = pages
        self._trusted_clients = trusted_clients

    def routes(self) -> list[Route]:
        return [
            Route("GET", REDIRECT, self.redirect_to_sso, Auth.NONE, limit="lookup", page=True),
            Route("GET", CLIENT_LOGIN, self.show, Auth.NONE, limit="lookup", page=True),
            Route("POST", CLIENT_LOGIN, self.decide, Auth.NONE, limit="login", page=True),
        ]

    async def redirect_to_sso(self, query: RedirectQuery) -> Response:
        """Send the browser to the page for signing in or up, and from there to that of the client.

        A browser that is signed in is asked by the latter, which offers another account.
        """
        query.check()
        address = _own_address(query)
        if query.registers:
            address = sign_in_location(address, create=True)
        return self._to(address, status=302)

    async def show(self, query: RedirectQuery, request: Request) -> Response:
        """The page that asks the user whether the client may use their account."""
        query.check()
        session = await self._sessions.find(request)
        address = _own_address(query)
        if session is None:
            return self._to(sign_in_location(address))
        if is_trusted(query.redirect_url, self._trusted_clients):
            return await self._to_client(query, session.user_id)
        base = self._sessions.cookies.base_path
        return self._pages.page(
            "account/client_login",
            allowed=Allowed(form="'self'"),
            client=client_of(query.redirect_url),
            is_web=query.redirect_url.lower().startswith(("https:", "http:")),
            user_id=session.user_id,
            form_token=session.form_token,
            action=base + address,
            other_account=base + sign_in_location(address),
        )

    async def decide(self, query: RedirectQuery, request: Request) -> Response:
        """The user has confirmed: return to the client with a login token."""
        query.check()
        form = read_form(request)
        session = await self._sessions.find(request)
        if session is None:
            return self._to(sign_in_location(_own_address(query)))
        self._sessions.check_form(session, form)
        return await self._to_client(query, session.user_id)

    async def _to_client(self, query: RedirectQuery, user_id: str) -> Response:
        """Return with a login token; by a page, since forms that lead here allow no other site."""
        token = await self._credentials.issue_token(user_id)
        url = with_login_token(query.redirect_url, token)
        return self._pages.page("sso/forward", headers={"Refresh": f"0; url={url}"}, url=url)

    def _to(self, address: str, status: int = 303) -> Response:
        location = self._sessions.cookies.base_path + address
        return Response(status, b"", {"Location": location, **NO_TRACES})


def _own_address(query: RedirectQuery) -> str:
    return f"{CLIENT_LOGIN}?{urlencode({'redirectUrl': query.redirect_url})}"

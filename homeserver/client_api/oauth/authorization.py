"""The authorisation endpoint: the page on which a user lets a client in, or not.

The request of the client stays in the address of the page, and is checked again when the user has
decided: so nothing is stored for a stranger.

An error goes back to the client by itself only when the user is signed in; others are shown it,
with a link. Anybody can register a client with an address of their own, and this server must not
send everybody there who opens a link (RFC 9700, section 4.11.2). A client that asks for no page at
all (`prompt=none`) gets its answer at once.

Spec: https://spec.matrix.org/v1.19/client-server-api/#authorisation-code-flow
"""

from collections.abc import Mapping
from http import HTTPStatus
from urllib.parse import urlencode

from homeserver.accounts.browser_sessions.browser_sessions import (
    BrowserSession,
    BrowserSessions,
    sign_in_location,
)
from homeserver.accounts.oauth.authorization_codes import AuthorizationCodes
from homeserver.accounts.oauth.clients import OAuthClients, RegisteredClient
from homeserver.accounts.sessions.devices import Devices
from homeserver.protocol.errors import NotFound
from homeserver.protocol.oauth.authorization_requests import (
    PROMPT_CREATE,
    PROMPT_LOGIN,
    PROMPT_NONE,
    AuthorizationRequest,
    Callback,
    Parameters,
    parse_authorization_request,
    parse_callback,
    prompts_of,
    single_parameter,
)
from homeserver.protocol.oauth.errors import (
    ACCESS_DENIED,
    CONSENT_REQUIRED,
    INVALID_REQUEST,
    LOGIN_REQUIRED,
    OAuthError,
)
from homeserver.protocol.oauth.redirect_uris import is_loopback, origin_of
from homeserver.protocol.oauth.scopes import Scope
from homeserver.protocol.oauth.server_metadata import AUTHORIZE, issuer_of
from homeserver.protocol.oauth.uris import https_host
from homeserver.web.browser.forms import read_form
from homeserver.web.html import Allowed, Pages
from homeserver.web.request import Request
from homeserver.web.routes import Auth, Response, Route

ALLOW = "allow"


class AuthorizationApi:
    def __init__(
        self,
        public_baseurl: str,
        pages: Pages,
        browsers: BrowserSessions,
        devices: Devices,
        clients: OAuthClients,
        codes: AuthorizationCodes,
    ) -> None:
        self._issuer = issuer_of(public_baseurl)
        self._pages = pages
        self._browsers = browsers
        self._devices = devices
        self._clients = clients
        self._codes = codes

    def routes(self) -> list[Route]:
        return [
            Route("GET", AUTHORIZE, self.show, auth=Auth.NONE, limit="lookup", page=True),
            Route("POST", AUTHORIZE, self.decide, auth=Auth.NONE, limit="lookup", page=True),
        ]

    async def show(self, request: Request, query: dict[str, list[str]]) -> Response:
        """The page that asks the user, or the way to it, or back to the client."""
        client, callback = await self._begin(query)
        prompts = prompts_of(query)
        session = await self._browsers.find(request)
        try:
            wanted = parse_authorization_request(query, client.metadata)
            if PROMPT_NONE in prompts:
                raise _unasked(session)
        except OAuthError as error:
            if session is None and PROMPT_NONE not in prompts:
                return self._error_page(client, callback, error)
            return self._back(callback, _failure(error))
        if session is None or prompts & {PROMPT_CREATE, PROMPT_LOGIN}:
            return self._to_sign_in(query, create=PROMPT_CREATE in prompts)
        return await self._page(query, client, callback, wanted, session)

    async def decide(self, request: Request, query: dict[str, list[str]]) -> Response:
        """Take the decision of the user, and return to the client."""
        client, callback = await self._begin(query)
        form = read_form(request)
        session = await self._browsers.find(request)
        if session is None:
            return self._to_sign_in(query)
        self._browsers.check_form(session, form)
        try:
            wanted = parse_authorization_request(query, client.metadata)
            if form.get("decision") != ALLOW:
                raise OAuthError(ACCESS_DENIED, "the user has denied the request")
        except OAuthError as error:
            return self._back(callback, _failure(error))
        code = await self._codes.issue(session.user_id, client, callback.redirect_uri, wanted)
        return self._back(callback, {"code": code})

    async def _begin(self, query: Parameters) -> tuple[RegisteredClient, Callback]:
        """The client, and where it wants the user back. What is raised is shown to the user."""
        client_id = single_parameter(query, "client_id")
        if client_id is None:
            raise OAuthError(INVALID_REQUEST, "the client_id is missing")
        try:
            client = await self._clients.get(client_id)
        except OAuthError as error:
            # The user is no client that could authenticate itself, as the status 401 asks.
            raise OAuthError(INVALID_REQUEST, str(error)) from None
        return client, parse_callback(query, client.metadata)

    def _error_page(
        self, client: RegisteredClient, callback: Callback, error: OAuthError
    ) -> Response:
        return self._pages.page(
            "oauth/failed",
            status=error.status,
            client=client.metadata,
            message=str(error),
            errcode=error.errcode,
            address=callback.address(self._issuer, _failure(error)),
        )

    async def _page(
        self,
        query: Parameters,
        client: RegisteredClient,
        callback: Callback,
        wanted: AuthorizationRequest,
        session: BrowserSession,
    ) -> Response:
        own, redirect_uri = self._own_address(query), callback.redirect_uri
        return self._pages.page(
            "oauth/consent",
            # Browsers apply it to the redirect that follows the form, too.
            allowed=Allowed(form=f"'self' {origin_of(redirect_uri)}"),
            client=client.metadata,
            user_id=session.user_id,
            replaced=await replaced_device(self._devices, session, wanted.scope),
            form_token=session.form_token,
            action=self._browsers.cookies.base_path + own,
            other_account=self._browsers.cookies.base_path + sign_in_location(own),
            returns_to=https_host(redirect_uri),
            is_loopback=is_loopback(redirect_uri),
        )

    def _to_sign_in(self, query: Parameters, *, create: bool = False) -> Response:
        location = sign_in_location(self._own_address(query), create=create)
        return _redirect(self._browsers.cookies.base_path + location)

    def _own_address(self, query: Parameters) -> str:
        """The path of this page for a request, which asks for no other prompt any more."""
        rest = {name: values for name, values in query.items() if name != "prompt"}
        return f"{AUTHORIZE}?{urlencode(rest, doseq=True)}"

    def _back(self, callback: Callback, outcome: Mapping[str, str]) -> Response:
        return _redirect(callback.address(self._issuer, outcome))


async def replaced_device(devices: Devices, session: BrowserSession, scope: Scope) -> str | None:
    """The name of the user's device in whose place a client asks to be, if they have it."""
    try:
        device = await devices.get(session.user_id, scope.device_id)
    except NotFound:
        return None
    return device.display_name or device.device_id


def _unasked(session: BrowserSession | None) -> OAuthError:
    """The answer to a client that wants nobody to be asked."""
    if session is None:
        return OAuthError(LOGIN_REQUIRED, "the user is not signed in")
    return OAuthError(CONSENT_REQUIRED, "the user has to be asked")


def _failure(error: OAuthError) -> dict[str, str]:
    return {"error": error.errcode, "error_description": str(error)}


def _redirect(location: str) -> Response:
    # 303: the browser repeats no form at the other end (RFC 9700, section 4.12).
    headers = {"Location": location, "Referrer-Policy": "no-referrer"}
    return Response(HTTPStatus.SEE_OTHER, b"", headers)

"""The device authorisation grant: codes for a client, and the page on which the user enters one.

Spec: https://spec.matrix.org/v1.19/client-server-api/#device-authorisation-flow
Source: https://datatracker.ietf.org/doc/html/rfc8628
"""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode

import msgspec

from homeserver.accounts.browser_sessions.browser_sessions import (
    BrowserSession,
    BrowserSessions,
    sign_in_location,
)
from homeserver.accounts.oauth.clients import OAuthClients
from homeserver.accounts.oauth.device_codes import (
    CODE_LIFE_MS,
    INTERVAL_MS,
    DeviceGrants,
    WaitingClient,
)
from homeserver.accounts.sessions.devices import Devices
from homeserver.client_api.oauth.authorization import ALLOW, replaced_device
from homeserver.client_api.oauth.parameters import body_parameters, required_parameter
from homeserver.protocol.oauth.authorization_requests import single_parameter
from homeserver.protocol.oauth.scopes import parse_scope
from homeserver.protocol.oauth.server_metadata import DEVICE, LINK
from homeserver.protocol.oauth.user_codes import parse_user_code, show_user_code
from homeserver.web.browser.forms import read_form
from homeserver.web.html import Allowed, Pages
from homeserver.web.request import Request
from homeserver.web.routes import Auth, Response, Route

ITSELF = Allowed(form="'self'")
NO_SUCH_CODE = "No client waits with this code. It may have expired: begin again there."


class DeviceAuthorizationApi:
    def __init__(
        self, public_baseurl: str, clients: OAuthClients, device_grants: DeviceGrants
    ) -> None:
        self._link = public_baseurl.rstrip("/") + LINK
        self._clients = clients
        self._device_grants = device_grants

    def routes(self) -> list[Route]:
        return [Route("POST", DEVICE, self.authorize_device, auth=Auth.NONE, limit="oauth")]

    async def authorize_device(self, body: bytes) -> dict[str, Any]:
        """Codes for a client that has no browser."""
        parameters = body_parameters(body)
        client = await self._clients.get(required_parameter(parameters, "client_id"))
        scope = parse_scope(single_parameter(parameters, "scope") or "")
        codes = await self._device_grants.begin(client, scope)
        shown = show_user_code(codes.user_code)
        return {
            "device_code": codes.device_code,
            "user_code": shown,
            "verification_uri": self._link,
            "verification_uri_complete": f"{self._link}?{urlencode({'user_code': shown})}",
            "expires_in": CODE_LIFE_MS // 1000,
            "interval": INTERVAL_MS // 1000,
        }


class LinkQuery(msgspec.Struct):
    user_code: str = ""


class DeviceLinkApi:
    """The page for users. `check_limit(user_id)` counts a code that a user tries."""

    def __init__(
        self,
        pages: Pages,
        browsers: BrowserSessions,
        devices: Devices,
        clients: OAuthClients,
        device_grants: DeviceGrants,
        check_limit: Callable[[str], None],
    ) -> None:
        self._pages = pages
        self._browsers = browsers
        self._devices = devices
        self._clients = clients
        self._device_grants = device_grants
        self._check_limit = check_limit

    def routes(self) -> list[Route]:
        return [
            Route("GET", LINK, self.show, auth=Auth.NONE, limit="lookup", page=True),
            Route("POST", LINK, self.decide, auth=Auth.NONE, limit="lookup", page=True),
        ]

    async def show(self, request: Request, query: LinkQuery) -> Response:
        """The page that asks for a code, or, with one, whether to let its client in."""
        session = await self._browsers.find(request)
        if session is None:
            return self._to_sign_in(query.user_code)
        if not query.user_code:
            return self._code_page("")
        waiting = await self._find(session, query.user_code)
        if waiting is None:
            return self._code_page(NO_SUCH_CODE)
        client = await self._clients.get(waiting.client_id)
        return self._pages.page(
            "oauth/link",
            allowed=ITSELF,
            client=client.metadata,
            device_id=waiting.scope.device_id,
            user_id=session.user_id,
            replaced=await replaced_device(self._devices, session, waiting.scope),
            form_token=session.form_token,
            user_code=show_user_code(parse_user_code(query.user_code) or ""),
            action=self._base + LINK,
            other_account=self._base + sign_in_location(_own_address(query.user_code)),
        )

    async def decide(self, request: Request) -> Response:
        """Take the decision of the user."""
        form = read_form(request)
        user_code = form.get("user_code", "")
        session = await self._browsers.find(request)
        if session is None:
            return self._to_sign_in(user_code)
        self._browsers.check_form(session, form)
        self._check_limit(session.user_id)
        is_allowed = form.get("decision") == ALLOW
        if not await self._device_grants.decide(user_code, session.user_id, is_allowed=is_allowed):
            return self._code_page(NO_SUCH_CODE)
        return self._pages.page("oauth/link_done", is_allowed=is_allowed)

    async def _find(self, session: BrowserSession, user_code: str) -> WaitingClient | None:
        self._check_limit(session.user_id)
        return await self._device_grants.find(user_code)

    def _code_page(self, problem: str) -> Response:
        return self._pages.page(
            "oauth/link_code", allowed=ITSELF, action=self._base + LINK, problem=problem
        )

    def _to_sign_in(self, user_code: str) -> Response:
        location = self._base + sign_in_location(_own_address(user_code))
        return Response(HTTPStatus.SEE_OTHER, b"", {"Location": location})

    @property
    def _base(self) -> str:
        return self._browsers.cookies.base_path


def _own_address(user_code: str) -> str:
    return f"{LINK}?{urlencode({'user_code': user_code[:64]})}" if user_code else LINK

"""CAS: a server that authenticates users, and validates the tickets that browsers bring.

Spec: https://apereo.github.io/cas/7.2.x/protocol/CAS-Protocol-Specification.html
"""

from collections.abc import Mapping
from types import ModuleType
from typing import Any
from urllib.parse import urlencode

from twisted.logger import Logger

from homeserver.concurrency.late_imports import Late
from homeserver.config.sections.single_sign_on import IdentityProviderSettings
from homeserver.outbound.http_client import OutboundClient, OutboundError, OutboundResponse
from homeserver.outbound.single_sign_on.identity_provider import (
    MAX_BODY,
    TIMEOUT_SECONDS,
    ProviderFailed,
    SignInRefused,
    SignInRequest,
)

CAS_RESPONSES = "homeserver.outbound.single_sign_on.cas_responses"
CAS_3, CAS_2 = "/p3/serviceValidate", "/serviceValidate"
MAX_TICKET = 1_024  # characters
log = Logger()


def late_cas_responses(reactor: Any) -> "Late[ModuleType]":
    """The module that reads responses, imported in a thread when it is first needed."""

    def module() -> ModuleType:
        from homeserver.outbound.single_sign_on import cas_responses

        return cas_responses

    return Late(reactor, CAS_RESPONSES, module)


class CasServer:
    """One CAS server."""

    def __init__(
        self,
        settings: IdentityProviderSettings,
        outbound: OutboundClient,
        cas_responses: "Late[ModuleType]",
    ) -> None:
        self._settings = settings
        self._outbound = outbound
        self._cas_responses = cas_responses
        assert settings.server_url is not None, "as the settings have checked"
        self._url = settings.server_url.rstrip("/")

    async def check(self) -> str:
        """That the log-in page is there. Raises `ProviderFailed`."""
        response = await self._get(f"{self._url}/login")
        if response.status >= 400:
            raise self._failed(f"{self._url}/login responds with {response.status}")
        return f"the CAS server {self._url} can be reached"

    async def sign_in_url(self, request: SignInRequest) -> str:
        """The address of the log-in page."""
        return f"{self._url}/login?{urlencode({'service': _service(request)})}"

    async def fetch_claims(
        self, request: SignInRequest, parameters: Mapping[str, str]
    ) -> Mapping[str, Any]:
        """The attributes of the user, for the ticket that came with the callback."""
        ticket = parameters.get("ticket")
        if not ticket or len(ticket) > MAX_TICKET:
            raise SignInRefused(f"You have not signed in with {self._settings.name}")
        query = urlencode({"service": _service(request), "ticket": ticket})
        path = self._settings.validate_path
        response = await self._get(f"{self._url}{path}?{query}")
        if response.status == 404 and path == CAS_3:
            response = await self._get(f"{self._url}{CAS_2}?{query}")
        if response.status != 200:
            raise self._failed(f"it responds to a ticket with {response.status}")
        module: Any = await self._cas_responses.get()
        try:
            claims: Mapping[str, Any] = module.read_claims(response.body)
        except module.TicketRefused as error:
            log.info("{provider} refuses a ticket: {why}", provider=self._settings.id, why=error)
            raise SignInRefused("This sign-in is too old, or was completed before") from None
        except module.InvalidCasResponse as error:
            raise self._failed(str(error)) from None
        return claims

    async def _get(self, url: str) -> OutboundResponse:
        try:
            return await self._outbound.request(
                "GET", url, max_body=MAX_BODY, timeout=TIMEOUT_SECONDS, follow_redirects=False
            )
        except OutboundError as error:
            raise self._failed(str(error)) from None

    def _failed(self, why: str) -> ProviderFailed:
        return ProviderFailed(self._settings, why)


def _service(request: SignInRequest) -> str:
    """The address to which the server sends the browser back; a ticket is for one service."""
    return f"{request.callback}?{urlencode({'state': request.state})}"

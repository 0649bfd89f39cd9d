"""The resources of accounts on a real socket, and a vocabulary to ask them."""

from typing import Any

import treq
from twisted.internet import reactor
from twisted.web.client import HTTPConnectionPool

from homeserver.accounts.appservices.appservices import Appservices
from homeserver.accounts.credentials.shared_secret import SharedSecret
from homeserver.accounts.login.password_change import PasswordChange
from homeserver.accounts.login.password_reset import PasswordReset
from homeserver.accounts.sessions.openid_tokens import OpenIdTokens
from homeserver.accounts.sessions.whois import WhoIs
from homeserver.accounts.status.account_moderation import AccountModeration
from homeserver.accounts.user_data.filters import Filters
from homeserver.accounts.user_data.tags import Tags
from homeserver.client_api.accounts.account import AccountApi
from homeserver.client_api.accounts.account_data import AccountDataApi
from homeserver.client_api.accounts.account_moderation import AccountModerationApi
from homeserver.client_api.accounts.account_whois import WhoIsApi
from homeserver.client_api.accounts.address_validation import AddressValidationApi
from homeserver.client_api.accounts.devices import DevicesApi
from homeserver.client_api.accounts.filters import FiltersApi
from homeserver.client_api.accounts.login import LoginApi, LoginTokenApi, SessionApi
from homeserver.client_api.accounts.openid import OpenIdApi
from homeserver.client_api.accounts.profile import ProfileApi
from homeserver.client_api.accounts.registration import RegistrationApi
from homeserver.client_api.accounts.shared_secret_registration import SharedSecretRegistrationApi
from homeserver.client_api.accounts.stage_forms import StageForms
from homeserver.client_api.accounts.tags import TagsApi
from homeserver.client_api.accounts.third_party_ids import ThirdPartyIdsApi
from homeserver.client_api.accounts.user_interactive_auth import FallbackApi
from homeserver.client_api.accounts.validation_page import ValidationPageApi
from homeserver.client_api.server.capabilities import CapabilitiesApi
from homeserver.client_api.server.discovery import DiscoveryApi
from homeserver.client_api.server.versions import VersionsApi
from homeserver.config.sections.calls import DelayedEventSettings
from homeserver.config.sections.support import Contact, Support
from homeserver.web.addresses import TrustedProxies
from homeserver.web.html import Pages
from homeserver.web.pipeline import RequestPipeline
from homeserver.web.rate_limits import RateLimits
from homeserver.web.router import Router
from homeserver.web.server import HttpServer
from tests.accounts.support import PASSWORD, SERVER, AccountsTestCase

V3 = "/_matrix/client/v3"
BASEURL = "https://matrix.example.org"
DELEGATED_TO = "matrix.example.org:443"
DUMMY = {"type": "m.login.dummy"}


class ApiTestCase(AccountsTestCase):
    """A test against all resources of accounts, on a real socket."""

    async def setUp(self) -> None:
        await super().setUp()
        gate = RequestPipeline(self.tokens, RateLimits(self.clock, {}), TrustedProxies([]))
        routes = [route for api in self.apis() for route in api.routes()]
        server = HttpServer(reactor, Router(routes), gate)  # type: ignore[arg-type]
        port = reactor.listenTCP(0, server, interface="127.0.0.1")  # type: ignore[attr-defined]
        self.addCleanup(port.stopListening)
        self.url = f"http://127.0.0.1:{port.getHost().port}"
        self.pool = HTTPConnectionPool(reactor, persistent=False)

    def apis(self) -> list[Any]:
        """The resources."""
        password_change = PasswordChange(self.db, self.passwords, self.sessions, allowed=True)
        reset = PasswordReset(self.uia, password_change, self.validation, self.ids)
        support = Support(contacts=(Contact(role="m.role.admin", email_address="a@example.org"),))
        secret = SharedSecret("hush, hush", self.clock)
        return [
            AccountApi(reset, self.deactivation, self.bindings, self.uia),
            AccountDataApi(self.account_data),
            AccountModerationApi(AccountModeration(self.db, SERVER, self.tokens, _without_pushers)),
            CapabilitiesApi(
                "12",
                DelayedEventSettings(),
                with_password=True,
                can_confirm=True,
                with_third_party_ids=True,
            ),
            DevicesApi(self.devices, self.sessions, self.uia),
            DiscoveryApi(BASEURL, DELEGATED_TO, support),
            FallbackApi(self.uia, StageForms(self.uia, Pages(SERVER)), Pages(SERVER)),
            FiltersApi(Filters(self.db)),
            LoginApi(self.login, Appservices(), BASEURL),
            LoginTokenApi(self.uia, self.credentials, can_confirm=True),
            OpenIdApi(OpenIdTokens(self.db, self.clock), SERVER),
            ProfileApi(self.profiles),
            RegistrationApi(self.registration_flow, self.registration_tokens, Appservices()),
            SessionApi(self.sessions, self.tokens),
            SharedSecretRegistrationApi(secret, self.registration, self.profiles, SERVER),
            TagsApi(Tags(self.account_data)),
            ThirdPartyIdsApi(self.ids, self.bindings, self.uia),
            AddressValidationApi(
                self.validation, self.registration_flow, self.ids, password_change
            ),
            ValidationPageApi(self.validation, Pages(SERVER)),
            VersionsApi({"org.example": True}, Appservices()),
            WhoIsApi(WhoIs(self.db, self.devices)),
        ]

    async def request(
        self, method: str, path: str, body: Any = None, token: str | None = None
    ) -> tuple[int, Any]:
        """Status and decoded body of an answer."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        how: dict[str, Any] = {} if body is None else {"json": body}
        response = await treq.request(
            method, self.url + path, headers=headers, pool=self.pool, **how
        )
        return response.code, await response.json()

    async def ok(self, *args: Any) -> Any:
        """The body of an answer that has to be 200."""
        status, body = await self.request(*args)
        self.assertEqual(status, 200, body)
        return body

    async def refusal(self, *args: Any) -> tuple[int, str]:
        """Status and error code of an answer that has to be an error."""
        status, body = await self.request(*args)
        self.assertTrue(body["error"])
        return status, body["errcode"]

    async def register(self, name: str = "alice", **more: Any) -> dict[str, Any]:
        """A user who registers over HTTP."""
        body = {"auth": DUMMY, "username": name, "password": PASSWORD, **more}
        response: dict[str, Any] = await self.ok("POST", f"{V3}/register", body)
        return response


async def _without_pushers(_: str) -> None:
    """Locked accounts have no pushers to be stopped in these tests."""

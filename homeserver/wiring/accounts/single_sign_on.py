"""Single sign-on: its providers, and its part of the client API."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from homeserver.accounts.credentials.verification import PasswordAndTokenVerifier
from homeserver.accounts.interactive_auth.owner_flows import OwnerFlows, password_flows
from homeserver.accounts.interactive_auth.user_interactive_auth import (
    FindFlows,
    UserInteractiveAuth,
)
from homeserver.accounts.registration.registration import Registration
from homeserver.client_api.accounts.login_fallback import PATH as LOGIN_PAGE
from homeserver.config.settings import Settings
from homeserver.outbound.http_client import OutboundClient
from homeserver.protocol.proposals.unstable_names import UNSTABLE_OAUTH_AWARE
from homeserver.protocol.signing.signatures import SigningKey
from homeserver.storage.database.database import Database
from homeserver.web.html import Pages
from homeserver.web.routes import Route

if TYPE_CHECKING:
    from homeserver.accounts.single_sign_on.single_sign_on import SingleSignOn
    from homeserver.client_api.single_sign_on.callback import OpenBrowserSession


def flows_of_owners(settings: Settings, db: Database) -> FindFlows:
    """How the owners of accounts confirm operations."""
    providers = settings.single_sign_on.providers
    if not providers:
        return password_flows
    ids = [provider.id for provider in providers]
    return OwnerFlows(db, ids, with_password=settings.passwords.enabled).find


def login_flows(settings: Settings) -> list[dict[str, Any]]:
    """The flows of `GET /login` that single sign-on and the pages for signing in add."""
    providers = settings.single_sign_on.providers
    with_pages = settings.oauth.enabled
    if not providers and not with_pages:
        return []
    described = [
        {
            name: value
            for name in ("id", "name", "icon", "brand")
            if (value := getattr(provider, name)) is not None
        }
        for provider in providers
    ]
    sso: dict[str, Any] = {"type": "m.login.sso"}
    if described:
        sso["identity_providers"] = described
    if with_pages:
        sso |= {"oauth_aware_preferred": True, UNSTABLE_OAUTH_AWARE: True}
    flows = [sso]
    if any(provider.kind == "cas" for provider in providers):
        flows.append({"type": "m.login.cas"})
    return flows


def links_from_login_page(settings: Settings) -> list[tuple[str, str]]:
    """The names of the providers, with the addresses for the log-in page of this server."""
    base = (settings.public_baseurl or "").rstrip("/")
    path = f"{urlsplit(base).path}/_matrix/client/v3/login/sso/redirect"
    page = quote(base + LOGIN_PAGE, safe="")
    return [
        (each.name, f"{path}/{quote(each.id)}?redirectUrl={page}")
        for each in settings.single_sign_on.providers
    ]


class SingleSignOnServices:
    """The objects of the area. A server without providers has and loads none of them.

    `open_browser_session` begins sessions of browsers, for the pages that need them.
    """

    def __init__(
        self,
        reactor: Any,
        settings: Settings,
        key: SigningKey,
        db: Database,
        registration: Registration,
        pages: Pages,
        open_browser_session: "OpenBrowserSession | None" = None,
    ) -> None:
        self._reactor = reactor
        self._settings = settings
        self._key = key
        self._db = db
        self._registration = registration
        self._pages = pages
        self._open_browser_session = open_browser_session
        self._outbound: OutboundClient | None = None
        self.single_sign_on = self._make()

    async def stop(self) -> None:
        """Close the connections to providers."""
        if self._outbound is not None:
            await self._outbound.stop()

    def routes(
        self, uia: UserInteractiveAuth, credentials: PasswordAndTokenVerifier
    ) -> Sequence[Route]:
        """The area's part of the client API."""
        if self.single_sign_on is None:
            return []
        from homeserver.accounts.single_sign_on.external_accounts import ExternalAccounts
        from homeserver.client_api.single_sign_on.callback import SsoCallbackApi
        from homeserver.client_api.single_sign_on.confirmation import SsoConfirmationApi
        from homeserver.client_api.single_sign_on.redirects import SsoRedirectApi

        accounts = ExternalAccounts(
            self._db, self._reactor, self._registration, self._settings.registration.terms
        )
        callback = SsoCallbackApi(
            self.single_sign_on,
            accounts,
            uia,
            credentials,
            self._pages,
            self._settings.single_sign_on.trusted_clients,
            self._open_browser_session,
        )
        apis: list[Any] = [
            SsoRedirectApi(
                self.single_sign_on,
                self._pages,
                with_browser_sessions=self._open_browser_session is not None,
            ),
            callback,
            SsoConfirmationApi(self.single_sign_on, accounts, uia, self._pages),
        ]
        return [route for api in apis for route in api.routes()]

    def _make(self) -> "SingleSignOn | None":
        if not self._settings.single_sign_on.providers:
            return None
        from homeserver.accounts.single_sign_on.sign_in_attempts import SignInAttempts
        from homeserver.accounts.single_sign_on.single_sign_on import SingleSignOn
        from homeserver.outbound.single_sign_on.providers import make_providers, provider_client

        public_baseurl = self._settings.public_baseurl
        assert public_baseurl is not None, "as the settings have checked"
        # A server signs JSON alone, so nobody has seen this signature.
        secret = self._key.sign(b"cookies of single sign-on")
        configured = self._settings.single_sign_on.providers
        self._outbound = provider_client(self._reactor, self._settings.outbound_http)
        providers = make_providers(self._reactor, configured, self._outbound)
        return SingleSignOn(
            configured,
            providers,
            SignInAttempts(secret, self._reactor, public_baseurl),
            public_baseurl,
        )

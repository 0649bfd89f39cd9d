"""The OAuth 2.0 API; loaded where it is enabled."""

from typing import Any

from homeserver.accounts.browser_sessions.browser_sessions import BrowserSessions
from homeserver.accounts.oauth.authorization_codes import AuthorizationCodes
from homeserver.accounts.oauth.clients import OAuthClients
from homeserver.accounts.oauth.device_codes import DeviceGrants
from homeserver.accounts.oauth.sessions import OAuthSessions
from homeserver.accounts.rendezvous.rendezvous_sessions import RendezvousSessions
from homeserver.accounts.sessions.token_issuer import TokenIssuer
from homeserver.client_api.oauth.authorization import AuthorizationApi
from homeserver.client_api.oauth.device_authorization import DeviceAuthorizationApi, DeviceLinkApi
from homeserver.client_api.oauth.entity_tag_rendezvous import EntityTagRendezvousApi
from homeserver.client_api.oauth.metadata import AuthMetadataApi
from homeserver.client_api.oauth.registration import ClientRegistrationApi
from homeserver.client_api.oauth.rendezvous import RendezvousApi
from homeserver.client_api.oauth.tokens import TokenApi
from homeserver.config.settings import Settings
from homeserver.storage.database.database import Database
from homeserver.web.rate_limits import RateLimits
from homeserver.wiring.accounts.account_core import AccountCore


class OAuth:
    """The objects of the OAuth 2.0 API, with its endpoints and pages."""

    def __init__(self, reactor: Any, settings: Settings, db: Database, core: AccountCore) -> None:
        assert settings.public_baseurl is not None, "as the settings have checked"
        self._has_sign_up = settings.registration.enabled and settings.passwords.enabled
        self._devices = core.devices
        self._pages = core.pages
        self._public_baseurl = settings.public_baseurl
        lifetimes = settings.oauth
        issuer = TokenIssuer(
            reactor, lifetimes.access_token_lifetime, lifetimes.refresh_token_lifetime
        )
        self._browsers = BrowserSessions(db, reactor, settings.public_baseurl)
        self._clients = OAuthClients(db, reactor)
        self._sessions = OAuthSessions(
            db, reactor, issuer, core.devices, core.access_tokens, core.sessions
        )
        self._codes = AuthorizationCodes(db, reactor, self._sessions)
        self._device_grants = DeviceGrants(db, reactor, self._sessions)
        self._rendezvous = RendezvousSessions(reactor)
        rates = settings.rate_limits
        # Counted by what no route knows, so no other object needs these buckets.
        self._limits = RateLimits(reactor, rates.actions() if rates.enabled else {})

    def apis(self) -> list[Any]:
        """The endpoints and pages."""
        clients, device_grants = self._clients, self._device_grants
        return [
            AuthMetadataApi(self._public_baseurl, with_registration=self._has_sign_up),
            ClientRegistrationApi(clients),
            AuthorizationApi(
                self._public_baseurl,
                self._pages,
                self._browsers,
                self._devices,
                clients,
                self._codes,
            ),
            TokenApi(
                clients,
                self._codes,
                device_grants,
                self._sessions,
                lambda address: self._limits.check("lookup", address),
            ),
            DeviceAuthorizationApi(self._public_baseurl, clients, device_grants),
            DeviceLinkApi(
                self._pages,
                self._browsers,
                self._devices,
                clients,
                device_grants,
                lambda user_id: self._limits.check("login", user_id),
            ),
            RendezvousApi(self._rendezvous),
            EntityTagRendezvousApi(self._public_baseurl, self._rendezvous),
        ]

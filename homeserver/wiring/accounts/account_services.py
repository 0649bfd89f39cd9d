"""Accounts: registration, log-in, profiles, deactivation, and their part of the client API."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from federation.api.openid import OpenIdUserInfoApi
from homeserver.accounts.browser_sessions.cross_signing_reset import CrossSigningReset
from homeserver.accounts.credentials.passwords import Passwords
from homeserver.accounts.credentials.registration_tokens import RegistrationTokens
from homeserver.accounts.credentials.shared_secret import SharedSecret
from homeserver.accounts.credentials.turn_credentials import TurnCredentials
from homeserver.accounts.credentials.user_identifier import UserIdentifiers
from homeserver.accounts.credentials.verification import PasswordAndTokenVerifier
from homeserver.accounts.interactive_auth.authentication_sessions import AuthenticationSessions
from homeserver.accounts.interactive_auth.authentication_stages import (
    DummyStage,
    PasswordStage,
    RecaptchaStage,
    RegistrationTokenStage,
    SsoStage,
    TermsStage,
)
from homeserver.accounts.interactive_auth.user_interactive_auth import (
    OAUTH_FLOWS,
    Stage,
    UserInteractiveAuth,
)
from homeserver.accounts.login.login import Login
from homeserver.accounts.login.password_change import PasswordChange
from homeserver.accounts.registration.notices_account import NoticesAccount
from homeserver.accounts.registration.registration import Registration
from homeserver.accounts.registration.registration_flow import RegistrationFlow
from homeserver.accounts.sessions.expired_rows import ExpiredRowCleanup
from homeserver.accounts.sessions.openid_tokens import OpenIdTokens
from homeserver.accounts.sessions.whois import WhoIs
from homeserver.accounts.status.account_moderation import AccountModeration
from homeserver.accounts.status.deactivation import Deactivated, Deactivation
from homeserver.accounts.user_data.profiles import FindRemoteProfile, ProfileHook, Profiles
from homeserver.accounts.user_data.tags import Tags
from homeserver.client_api.accounts.account import AccountApi
from homeserver.client_api.accounts.account_data import AccountDataApi
from homeserver.client_api.accounts.account_moderation import AccountModerationApi
from homeserver.client_api.accounts.account_whois import WhoIsApi
from homeserver.client_api.accounts.devices import DevicesApi
from homeserver.client_api.accounts.filters import FiltersApi
from homeserver.client_api.accounts.login import LoginApi, LoginTokenApi, SessionApi
from homeserver.client_api.accounts.login_fallback import LoginFallbackApi
from homeserver.client_api.accounts.openid import OpenIdApi
from homeserver.client_api.accounts.profile import ProfileApi
from homeserver.client_api.accounts.registration import RegistrationApi
from homeserver.client_api.accounts.shared_secret_registration import SharedSecretRegistrationApi
from homeserver.client_api.accounts.stage_forms import StageForms
from homeserver.client_api.accounts.tags import TagsApi
from homeserver.client_api.accounts.user_interactive_auth import FallbackApi
from homeserver.client_api.calls.matrix_rtc import MatrixRtcApi
from homeserver.client_api.calls.turn import TurnApi
from homeserver.client_api.server.capabilities import CapabilitiesApi
from homeserver.client_api.server.discovery import DiscoveryApi
from homeserver.client_api.server.versions import VersionsApi
from homeserver.config.settings import Settings
from homeserver.outbound.recaptcha import Recaptcha
from homeserver.storage.database.database import Database
from homeserver.web.rate_limits import RateLimits
from homeserver.web.routes import Route
from homeserver.wiring.accounts.account_core import AccountCore
from homeserver.wiring.accounts.single_sign_on import (
    SingleSignOnServices,
    flows_of_owners,
    links_from_login_page,
    login_flows,
)

if TYPE_CHECKING:
    from homeserver.wiring.accounts.account_pages import AccountPages


class AccountServices:
    """The objects of accounts that act in rooms, and the APIs of the area.

    `uia` confirms the sensitive operations of all areas, `cross_signing_resets` one of them on a
    page, where there are pages.

    `find_remote` gives profiles of users of other servers. `on_profile_changed` and
    `on_deactivated` are called after the accounts' own changes.
    """

    def __init__(
        self,
        reactor: Any,
        settings: Settings,
        db: Database,
        core: AccountCore,
        find_remote: FindRemoteProfile,
        on_profile_changed: Sequence[ProfileHook],
        on_deactivated: Sequence[Deactivated],
    ) -> None:
        self._settings = settings
        self._db = db
        self._reactor = reactor
        self._core = core
        self.profiles = Profiles(
            core.local_profiles,
            settings.server_name,
            find_remote,
            on_profile_changed,
            core.provisioning.user,
        )
        self._deactivation = Deactivation(
            db,
            reactor,
            core.sessions,
            core.local_profiles,
            core.account_data,
            [core.erased_users.deactivated, core.third_party.deactivated, *on_deactivated],
        )
        self._expiry = ExpiredRowCleanup(db, reactor)
        self._passwords = Passwords(reactor, settings.passwords)
        rates = settings.rate_limits
        # Counted by account, or where an account is created; requests are counted by the server.
        self._limits = RateLimits(reactor, rates.actions() if rates.enabled else {})
        self._credentials = self._verifier()
        self._identifiers = UserIdentifiers(db, settings.server_name)
        self._registration_tokens = RegistrationTokens(db, reactor)
        self.cross_signing_resets = (
            CrossSigningReset(db, reactor) if settings.oauth.enabled else None
        )
        self.uia = UserInteractiveAuth(
            AuthenticationSessions(db, reactor), self._stages(), flows_of_owners(settings, db)
        )
        self._registration = Registration(
            db,
            reactor,
            settings.server_name,
            self._passwords,
            core.sessions,
            core.access_tokens,
            localpart_as_display_name=settings.registration.localpart_as_display_name,
            is_reserved=lambda user_id: core.appservices.owner_of_user(user_id) is not None,
        )
        self._pages = self._make_pages()
        self._single_sign_on = self._make_single_sign_on()
        self.notices_account = NoticesAccount(
            settings.server_notices, settings.server_name, db, self._registration, self.profiles
        )

    def start(self) -> None:
        """Start background work."""
        self._core.start()
        self._deactivation.start()
        self._expiry.start()

    async def stop(self) -> None:
        """Stop background work, and write what is not stored yet."""
        await self._expiry.stop()
        await self._deactivation.stop()
        await self._single_sign_on.stop()
        await self._core.stop()

    def routes(self, conditional_features: Mapping[str, bool]) -> list[Route]:
        """The area's part of the client API."""
        settings, core, db, clock = self._settings, self._core, self._db, self._reactor
        credentials, uia, third_party = self._credentials, self.uia, core.third_party
        sign_up = self._registration_flow()
        can_confirm = self._can_confirm
        password_change = PasswordChange(
            db, self._passwords, core.sessions, allowed=settings.passwords.enabled
        )
        moderation = AccountModeration(
            db, settings.server_name, core.access_tokens, core.pushers.lock_changed
        )
        apis: list[Any] = [
            AccountApi(
                third_party.password_reset(uia, password_change),
                self._deactivation,
                third_party.bindings,
                uia,
            ),
            AccountDataApi(core.account_data),
            AccountModerationApi(moderation),
            CapabilitiesApi(
                settings.rooms.default_version,
                settings.delayed_events,
                with_password=settings.passwords.enabled,
                can_confirm=can_confirm,
                with_third_party_ids=third_party.can_be_changed,
            ),
            DevicesApi(core.devices, core.sessions, uia),
            DiscoveryApi(
                settings.public_baseurl,
                settings.federation.delegated_to,
                settings.support,
                settings.matrix_rtc.transports,
            ),
            FiltersApi(core.filters),
            FallbackApi(uia, StageForms(uia, core.pages), core.pages),
            LoginApi(self._login(), core.appservices, settings.public_baseurl),
            LoginFallbackApi(
                core.pages,
                with_password=settings.passwords.enabled,
                providers=links_from_login_page(settings),
            ),
            LoginTokenApi(uia, credentials, can_confirm=can_confirm),
            MatrixRtcApi(settings.matrix_rtc.transports),
            OpenIdApi(OpenIdTokens(db, clock), settings.server_name),
            ProfileApi(self.profiles),
            RegistrationApi(sign_up, self._registration_tokens, core.appservices),
            SessionApi(core.sessions, core.access_tokens),
            TagsApi(Tags(core.account_data)),
            TurnApi(TurnCredentials(settings.turn, clock), allow_guests=settings.turn.allow_guests),
            VersionsApi(conditional_features, core.appservices),
            WhoIsApi(WhoIs(db, core.devices)),
            *third_party.apis(uia, sign_up, password_change),
        ]
        apis += [*self._shared_secret_apis(), *self._account_pages(sign_up, password_change)]
        routes = [route for api in apis for route in api.routes()]
        return [*routes, *self._single_sign_on.routes(uia, credentials)]

    @property
    def _can_confirm(self) -> bool:
        """Whether users of the legacy API can confirm operations at all."""
        settings = self._settings
        return settings.passwords.enabled or bool(settings.single_sign_on.providers)

    def _login(self) -> Login:
        return Login(
            self._db,
            self._identifiers,
            self._credentials,
            self._core.sessions,
            with_password=self._settings.passwords.enabled,
            can_confirm=self._can_confirm,
            sso_flows=login_flows(self._settings),
        )

    def _make_single_sign_on(self) -> SingleSignOnServices:
        return SingleSignOnServices(
            self._reactor,
            self._settings,
            self._core.signing_key,
            self._db,
            self._registration,
            self._core.pages,
            None if self._pages is None else self._pages.sessions.open,
        )

    def _make_pages(self) -> "AccountPages | None":
        """The sessions of browsers, and the pages that need them."""
        if not self._settings.oauth.enabled:
            return None
        # Most servers have neither such pages nor the API that leads to them.
        from homeserver.wiring.accounts.account_pages import AccountPages

        return AccountPages(self._reactor, self._settings, self._db, self._core)

    def _account_pages(
        self, sign_up: RegistrationFlow, password_change: PasswordChange
    ) -> list[Any]:
        pages = self._pages
        if pages is None:
            return []
        from homeserver.wiring.accounts.oauth import OAuth

        sso = self._single_sign_on.single_sign_on
        return [
            *pages.entrance_apis(
                self._identifiers,
                self._credentials,
                sign_up,
                self.uia,
                password_change,
                () if sso is None else sso.options,
            ),
            *pages.account_apis(
                self.profiles, self._credentials, password_change, self._deactivation
            ),
            *OAuth(self._reactor, self._settings, self._db, self._core).apis(),
        ]

    def _registration_flow(self) -> RegistrationFlow:
        return RegistrationFlow(
            self._settings.registration,
            self.uia,
            self._registration,
            self._core.sessions,
            self._passwords,
            lambda party: self._limits.check("registration", party),
        )

    def _shared_secret_apis(self) -> list[Any]:
        secret = self._settings.registration.shared_secret
        if secret is None:
            return []
        shared = SharedSecret(secret, self._reactor)
        server_name = self._settings.server_name
        return [SharedSecretRegistrationApi(shared, self._registration, self.profiles, server_name)]

    def federation_routes(self) -> list[Route]:
        """The area's part of the Server-Server API."""
        return OpenIdUserInfoApi(OpenIdTokens(self._db, self._reactor)).routes()

    def _verifier(self) -> PasswordAndTokenVerifier:
        return PasswordAndTokenVerifier(
            self._db,
            self._reactor,
            self._passwords,
            self._settings.tokens.login_token_lifetime,
            lambda user_id: self._limits.check("password", user_id),
        )

    def _stages(self) -> list[Stage]:
        settings = self._settings
        stages: list[Stage] = [
            DummyStage(),
            PasswordStage(self._credentials, self._identifiers),
            RegistrationTokenStage(self._registration_tokens),
            TermsStage(settings.registration.terms),
        ]
        if settings.recaptcha.public_key is not None:
            recaptcha = Recaptcha(self._core.outbound, settings.recaptcha)
            stages.append(RecaptchaStage(settings.recaptcha.public_key, recaptcha.is_solved))
        if settings.single_sign_on.providers:
            stages.append(SsoStage())
        if self.cross_signing_resets is not None:
            stages += self._page_stages(self.cross_signing_resets)
        return [*stages, *self._core.third_party.stages()]

    def _page_stages(self, resets: CrossSigningReset) -> list[Stage]:
        from homeserver.accounts.interactive_auth.oauth_stage import OAuthStage

        base = self._settings.public_baseurl or ""
        return [OAuthStage(name, base, resets) for (name,) in OAUTH_FLOWS]

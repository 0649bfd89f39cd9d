"""The pages on which users sign in and manage their accounts; loaded where they are enabled."""

from collections.abc import Sequence
from typing import Any

from homeserver.accounts.browser_sessions.anonymous_forms import AnonymousForms
from homeserver.accounts.browser_sessions.browser_sessions import BrowserSessions
from homeserver.accounts.browser_sessions.cross_signing_reset import CrossSigningReset
from homeserver.accounts.credentials.user_identifier import UserIdentifiers
from homeserver.accounts.credentials.verification import PasswordAndTokenVerifier
from homeserver.accounts.interactive_auth.third_party_stage import EMAIL_IDENTITY
from homeserver.accounts.interactive_auth.user_interactive_auth import UserInteractiveAuth
from homeserver.accounts.login.browser_login import BrowserLogin
from homeserver.accounts.login.password_change import PasswordChange
from homeserver.accounts.registration.registration_flow import RegistrationFlow
from homeserver.accounts.status.deactivation import Deactivation
from homeserver.accounts.user_data.profiles import Profiles
from homeserver.client_api.account_pages.account import OVERVIEW, AccountAction, AccountPagesApi
from homeserver.client_api.account_pages.addresses import AddressesAction
from homeserver.client_api.account_pages.client_login import ClientLoginApi
from homeserver.client_api.account_pages.devices import (
    DeviceDeleteAction,
    DevicesListAction,
    DeviceViewAction,
    SignOutEverywhereAction,
)
from homeserver.client_api.account_pages.overview import OverviewAction, ProfileAction
from homeserver.client_api.account_pages.reset_password import ResetPasswordApi
from homeserver.client_api.account_pages.security import (
    CrossSigningResetAction,
    DeactivateAction,
    PasswordAction,
)
from homeserver.client_api.account_pages.sign_in import SignInApi, SignInProvider
from homeserver.client_api.account_pages.sign_out import SignOutApi
from homeserver.client_api.account_pages.sign_up import SignUpApi
from homeserver.client_api.account_pages.visits import (
    ADDRESSES,
    CROSS_SIGNING_RESET,
    DEACTIVATE,
    DEVICE_DELETE,
    DEVICE_VIEW,
    DEVICES_LIST,
    PASSWORD,
    PROFILE,
    SIGN_OUT_EVERYWHERE,
    AccountPage,
)
from homeserver.client_api.accounts.stage_forms import StageForms
from homeserver.config.settings import Settings
from homeserver.storage.database.database import Database
from homeserver.wiring.accounts.account_core import AccountCore


class AccountPages:
    """The sessions of browsers, and the pages that need them."""

    def __init__(self, reactor: Any, settings: Settings, db: Database, core: AccountCore) -> None:
        assert settings.public_baseurl is not None, "as the settings have checked"
        self.sessions = BrowserSessions(db, reactor, settings.public_baseurl)
        self.cross_signing_reset = CrossSigningReset(db, reactor)
        self._forms = AnonymousForms(self.sessions.cookies)
        self._reactor = reactor
        self._core = core
        self._with_password = settings.passwords.enabled
        self._can_register = settings.registration.enabled
        self._trusted_clients = settings.single_sign_on.trusted_clients

    def entrance_apis(
        self,
        identifiers: UserIdentifiers,
        credentials: PasswordAndTokenVerifier,
        registration: RegistrationFlow,
        uia: UserInteractiveAuth,
        password_change: PasswordChange,
        providers: Sequence[SignInProvider] = (),
    ) -> list[Any]:
        """The pages for signing in, up and out, and for a forgotten password."""
        login = BrowserLogin(
            identifiers, credentials, self.sessions, with_password=self._with_password
        )
        sessions, forms, pages = self.sessions, self._forms, self._core.pages
        stages, with_password = StageForms(uia, pages), self._with_password
        can_sign_up = self._can_register and with_password
        can_reset = EMAIL_IDENTITY in uia.stages and with_password
        reset = self._core.third_party.password_reset(uia, password_change)
        base_path = sessions.cookies.base_path
        return [
            SignInApi(
                login,
                sessions,
                forms,
                pages,
                providers,
                can_sign_up=can_sign_up,
                can_reset=can_reset,
            ),
            *([ResetPasswordApi(reset, stages, forms, pages, base_path)] if can_reset else []),
            SignUpApi(
                registration, uia, stages, sessions, forms, pages, with_password=with_password
            ),
            SignOutApi(sessions),
            ClientLoginApi(sessions, credentials, pages, self._trusted_clients),
        ]

    def account_apis(
        self,
        profiles: Profiles,
        credentials: PasswordAndTokenVerifier,
        password_change: PasswordChange,
        deactivation: Deactivation,
    ) -> list[Any]:
        """The pages of an account."""
        sessions, core = self.sessions, self._core
        page = AccountPage(core.pages, sessions.cookies.base_path)
        local, third_party = core.local_profiles, core.third_party
        can_add = third_party.can_be_changed
        actions: dict[str, AccountAction] = {
            OVERVIEW: OverviewAction(page, local, password_change),
            PROFILE: ProfileAction(
                page, local, profiles, third_party.ids, sessions, can_change_addresses=can_add
            ),
            ADDRESSES: AddressesAction(
                page, third_party.ids, third_party.bindings, sessions, can_add=can_add
            ),
            DEVICES_LIST: DevicesListAction(page, core.devices),
            DEVICE_VIEW: DeviceViewAction(page, core.devices),
            DEVICE_DELETE: DeviceDeleteAction(page, core.devices),
            DEACTIVATE: DeactivateAction(page, deactivation, sessions),
            CROSS_SIGNING_RESET: CrossSigningResetAction(page, self.cross_signing_reset),
            SIGN_OUT_EVERYWHERE: SignOutEverywhereAction(page, core.sessions, sessions),
            PASSWORD: PasswordAction(page, credentials, password_change, sessions),
        }
        return [AccountPagesApi(sessions, self._reactor, actions)]

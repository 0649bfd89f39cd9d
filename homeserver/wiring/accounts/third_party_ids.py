"""Third-party identifiers: mails, validation, addresses of accounts, identity servers."""

from typing import TYPE_CHECKING, Any

from homeserver.accounts.interactive_auth.third_party_stage import STAGES, ThirdPartyIdStage
from homeserver.accounts.interactive_auth.user_interactive_auth import Stage, UserInteractiveAuth
from homeserver.accounts.login.password_change import PasswordChange
from homeserver.accounts.login.password_reset import PasswordReset
from homeserver.accounts.registration.registration_flow import RegistrationFlow
from homeserver.accounts.third_party_ids.address_validation import (
    AddressValidation,
    ValidationSender,
)
from homeserver.accounts.third_party_ids.identity_bindings import IdentityBindings
from homeserver.accounts.third_party_ids.third_party_ids import OnEmailRemoved, ThirdPartyIds
from homeserver.client_api.accounts.address_validation import AddressValidationApi
from homeserver.client_api.accounts.third_party_ids import ThirdPartyIdsApi
from homeserver.client_api.accounts.validation_page import ValidationPageApi
from homeserver.config.settings import Settings
from homeserver.outbound.http_client import OutboundClient
from homeserver.outbound.identity_invitations import IdentityInvitations
from homeserver.outbound.identity_servers import IdentityServers
from homeserver.outbound.validation_mails import ValidationMails
from homeserver.protocol.identifiers import parse_server_name
from homeserver.protocol.signing.signatures import SigningKey
from homeserver.protocol.third_party_ids.addresses import EMAIL
from homeserver.storage.database.database import Database
from homeserver.web.html import Pages
from homeserver.web.rate_limits import RateLimits

if TYPE_CHECKING:
    from homeserver.outbound.mail import Mailer


class ThirdParty:
    """The objects of the area. A medium is offered if messages can be sent by it."""

    def __init__(
        self,
        reactor: Any,
        settings: Settings,
        key: SigningKey,
        db: Database,
        outbound: OutboundClient,
        pages: Pages,
        on_email_removed: OnEmailRemoved,
    ) -> None:
        self._settings = settings
        self._pages = pages
        self._db = db
        self.mailer = _mailer(reactor, settings)
        rates = settings.rate_limits
        # Counted by the recipient's address, not by the requester.
        limits = RateLimits(reactor, rates.actions() if rates.enabled else {})
        self._validation = AddressValidation(
            db,
            reactor,
            settings.email,
            self._validation_senders(),
            lambda address: limits.check("mail", address),
        )
        self.ids = ThirdPartyIds(
            db,
            reactor,
            self._validation,
            on_email_removed,
            changes_allowed=settings.third_party_ids.enable_changes,
        )
        servers = IdentityServers(outbound, settings.server_name, key)
        self.bindings = IdentityBindings(db, servers, settings.third_party_ids.identity_servers)
        self.invitations = IdentityInvitations(servers)

    @property
    def can_be_changed(self) -> bool:
        """Whether users can add addresses to their accounts."""
        allowed = self._settings.third_party_ids.enable_changes
        return allowed and any(map(self._validation.supports, STAGES))

    def stages(self) -> list[Stage]:
        """The stages of the media that can be validated."""
        return [
            ThirdPartyIdStage(medium, self._validation, self._db)
            for medium in STAGES
            if self._validation.supports(medium)
        ]

    def password_reset(
        self, uia: UserInteractiveAuth, password_change: PasswordChange
    ) -> PasswordReset:
        """The service that sets new passwords, given the old one or a validated address."""
        return PasswordReset(uia, password_change, self._validation, self.ids)

    def apis(
        self, uia: UserInteractiveAuth, sign_up: RegistrationFlow, password_change: PasswordChange
    ) -> list[Any]:
        """The APIs of the area."""
        return [
            AddressValidationApi(self._validation, sign_up, self.ids, password_change),
            ThirdPartyIdsApi(self.ids, self.bindings, uia),
            ValidationPageApi(self._validation, self._pages),
        ]

    async def deactivated(self, user_id: str, erase: bool) -> None:
        """Unpublish the addresses of a user whose account was deactivated."""
        await self.bindings.unbind_all(user_id)

    async def stop(self) -> None:
        """Send no more mails."""
        if self.mailer is not None:
            await self.mailer.stop()

    def _validation_senders(self) -> dict[str, ValidationSender]:
        if self.mailer is None:
            return {}
        name, public_baseurl = self._settings.server_name, self._settings.public_baseurl
        assert public_baseurl is not None, "as the settings have checked"
        return {EMAIL: ValidationMails(self.mailer, name, public_baseurl)}


def _mailer(reactor: Any, settings: Settings) -> "Mailer | None":
    if not settings.email.enabled:
        return None
    from homeserver.outbound.mail import Mailer  # most servers send no mail

    return Mailer(reactor, settings.email, parse_server_name(settings.server_name).host)

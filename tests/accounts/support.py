"""All objects of accounts on a fresh database, and a vocabulary to talk about them."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from twisted.internet import reactor
from twisted.internet.task import Clock

from homeserver.accounts.appservices.appservices import Appservices
from homeserver.accounts.credentials.passwords import Passwords
from homeserver.accounts.credentials.registration_tokens import RegistrationTokens
from homeserver.accounts.credentials.user_identifier import UserIdentifiers
from homeserver.accounts.credentials.verification import PasswordAndTokenVerifier
from homeserver.accounts.interactive_auth.authentication_sessions import AuthenticationSessions
from homeserver.accounts.interactive_auth.authentication_stages import (
    DummyStage,
    PasswordStage,
    RecaptchaStage,
    RegistrationTokenStage,
    TermsStage,
)
from homeserver.accounts.interactive_auth.third_party_stage import ThirdPartyIdStage
from homeserver.accounts.interactive_auth.user_interactive_auth import UserInteractiveAuth
from homeserver.accounts.login.login import Login
from homeserver.accounts.registration.registration import NewUser, Registration
from homeserver.accounts.registration.registration_flow import RegistrationFlow
from homeserver.accounts.sessions.access_tokens import AccessTokens
from homeserver.accounts.sessions.devices import Devices
from homeserver.accounts.sessions.last_seen import LastSeen
from homeserver.accounts.sessions.login_sessions import DeviceRequest, LoginSession, LoginSessions
from homeserver.accounts.sessions.requester import Requester
from homeserver.accounts.status.deactivation import Deactivation
from homeserver.accounts.status.erasure import ErasedUsers
from homeserver.accounts.third_party_ids.address_validation import AddressValidation
from homeserver.accounts.third_party_ids.identity_bindings import IdentityBindings
from homeserver.accounts.third_party_ids.third_party_ids import ThirdPartyIds
from homeserver.accounts.user_data.account_data import AccountData
from homeserver.accounts.user_data.profiles import LocalProfiles, Profile, Profiles
from homeserver.config.sections.accounts import (
    PasswordSettings,
    PolicySettings,
    RegistrationSettings,
    TokenSettings,
)
from homeserver.config.sections.contact import EmailSettings
from homeserver.config.sections.limits import RateSettings
from homeserver.protocol.errors import MailNotSent, MatrixError, NotFound
from homeserver.protocol.third_party_ids.address_validation import (
    ThreepidCredentials as NamedSession,
)
from homeserver.protocol.third_party_ids.address_validation import ValidationMessage
from homeserver.storage.accounts.identity_bindings import IdentityBinding
from homeserver.streams.log import Log
from homeserver.web.rate_limits import RateLimits
from tests.support.logs import free_counters, transcoding
from tests.support.postgres import DatabaseTestCase

SERVER = "example.org"
ALICE = f"@alice:{SERVER}"
BOB = f"@bob:{SERVER}"
PASSWORD = "correct horse"
TERMS = (
    PolicySettings(id="privacy", version="1.2", name="Privacy", url="https://example.org/privacy"),
)


class Somewhere:
    """A request, as far as an authenticator looks at it."""

    address = "192.0.2.7"

    def header(self, name: bytes) -> str | None:
        return "Weechat/4\0" if name == b"User-Agent" else None


class MailRecorder:
    """A courier that keeps what it should deliver; `broken`, it fails."""

    def __init__(self) -> None:
        self.letters: list[ValidationMessage] = []
        self.broken = False

    async def deliver(self, letter: ValidationMessage) -> None:
        if self.broken:
            raise MailNotSent("the mail server is on fire")
        self.letters.append(letter)


class PretendedIdentityServers:
    """Identity servers that the test controls, or that raise `error`.

    The address of a session is its id, at example.com.
    """

    def __init__(self) -> None:
        self.error: MatrixError | None = None
        self.supports_unbinding = True
        self.bound: list[tuple[str, str]] = []  # server and address

    async def bind(
        self, id_server: str, access_token: str, named: NamedSession, user_id: str
    ) -> tuple[str, str]:
        if self.error is not None:
            raise self.error
        address = f"{named.sid}@example.com"
        self.bound.append((id_server, address))
        return "email", address

    async def unbind(self, binding: IdentityBinding) -> bool:
        if self.error is not None:
            raise self.error
        if self.supports_unbinding:
            self.bound.remove((binding.id_server, binding.address))
        return self.supports_unbinding


class AccountsTestCase(DatabaseTestCase):
    """A test with everything that accounts are made of. Time stands still until it is advanced."""

    registration_settings = RegistrationSettings(enabled=True, guests=True)
    email_settings = EmailSettings()
    couriers: Mapping[str, MailRecorder] = MappingProxyType({})  # by medium

    async def setUp(self) -> None:
        await super().setUp()
        self.clock = Clock()
        self.clock.advance(1_700_000_000)
        clock: Any = reactor
        transcode = transcoding(is_wanted=False)
        self.log = Log(clock, self.db.write_batch, free_counters(clock), transcode=transcode)
        self.build()

    async def clean_up(self) -> None:
        await self.log.flush()
        await super().clean_up()

    def build(self) -> None:
        """Make all objects, as at a start of the server."""
        db, clock, log = self.db, self.clock, self.log
        self.last_seen = LastSeen(db, clock)
        self.devices = Devices(db, log, self.last_seen)
        self.tokens = AccessTokens(db, clock, self.last_seen, Appservices())
        self.sessions = LoginSessions(db, clock, TokenSettings(), self.devices, self.tokens)
        self.passwords = Passwords(reactor, PasswordSettings(hash_cost="lowest"))
        limits = RateLimits(clock, {"password": RateSettings(per_second=0.1, burst=5)})
        self.credentials = PasswordAndTokenVerifier(
            db,
            clock,
            self.passwords,
            token_lifetime=120,
            check_limit=lambda user_id: limits.check("password", user_id),
        )
        self.identifiers = UserIdentifiers(db, SERVER)
        self.login = Login(
            db,
            self.identifiers,
            self.credentials,
            self.sessions,
            with_password=True,
            can_confirm=True,
        )
        self.registration = Registration(
            db,
            clock,
            SERVER,
            self.passwords,
            self.sessions,
            self.tokens,
            localpart_as_display_name=self.registration_settings.localpart_as_display_name,
            is_reserved=lambda user_id: user_id.startswith("@irc_"),
        )
        self.registration_tokens = RegistrationTokens(db, clock)
        self.build_third_party_ids()
        stages = (
            DummyStage(),
            PasswordStage(self.credentials, self.identifiers),
            RegistrationTokenStage(self.registration_tokens),
            TermsStage(self.registration_settings.terms),
            RecaptchaStage("site key", self.is_solved),
            *(ThirdPartyIdStage(medium, self.validation, db) for medium in self.couriers),
        )
        self.uia = UserInteractiveAuth(AuthenticationSessions(db, clock), stages)
        self.registration_flow = RegistrationFlow(
            self.registration_settings,
            self.uia,
            self.registration,
            self.sessions,
            self.passwords,
            lambda _: None,
        )
        self.local_profiles = LocalProfiles(db, log)
        self.profiles = Profiles(
            self.local_profiles, SERVER, self.find_remote_profile, [self.profile_changed]
        )
        self.account_data = AccountData(db, log)
        self.erased = ErasedUsers(db, log)
        self.deactivation = Deactivation(
            db,
            clock,
            self.sessions,
            self.local_profiles,
            self.account_data,
            [self.erased.deactivated, self.leave_rooms],
        )
        for reader in (self.tokens, self.local_profiles, self.account_data, self.erased):
            log.subscribe(reader.apply)

    def build_third_party_ids(self) -> None:
        """Build the objects for the addresses of accounts."""
        rates = {"mail": RateSettings(per_second=0.01, burst=4)}
        limits = RateLimits(self.clock, rates)
        self.validation = AddressValidation(
            self.db,
            self.clock,
            self.email_settings,
            self.couriers,
            lambda address: limits.check("mail", address),
        )
        self.ids = ThirdPartyIds(
            self.db, self.clock, self.validation, self.email_removed, changes_allowed=True
        )
        self.identity_servers = PretendedIdentityServers()
        self.bindings = IdentityBindings(self.db, self.identity_servers)

    async def is_solved(self, response: str) -> bool:
        """The service behind the captcha."""
        return response == "I see three bicycles"

    async def find_remote_profile(self, user_id: str, field: str | None) -> Profile:
        """The profile of a user of another server."""
        raise NotFound("No other server can be asked")

    async def email_removed(self, user_id: str, address: str) -> None:
        """What pushers do when an address was removed."""

    async def profile_changed(self, user_id: str, field: str) -> None:
        """What rooms do where a profile has changed."""

    async def leave_rooms(self, user_id: str, erase: bool) -> None:
        """What rooms do where an account was closed."""

    async def user(self, name: str = "alice", **device: Any) -> LoginSession:
        """A user who has just registered, and is logged in."""
        new = NewUser(name, PASSWORD)
        _, session = await self.registration.register(new, DeviceRequest(**device))
        assert session is not None
        return session

    async def caller(self, session: LoginSession) -> Requester:
        """The requester of a session's token."""
        return await self.authenticate(session.tokens.access_token)

    async def authenticate(self, token: str) -> Requester:
        """The requester of a token."""
        found = self.tokens.authenticate(token, Somewhere())
        return found if isinstance(found, Requester) else await found

    async def refused(self, awaitable: Any, errcode: str, status: int | None = None) -> MatrixError:
        """The error that something is refused with."""
        error: MatrixError = await self.assertFailure(self.started(awaitable), MatrixError)
        self.assertEqual(error.body().get("errcode"), errcode)
        if status is not None:
            self.assertEqual(error.status, status)
        return error

    def started(self, awaitable: Any) -> Any:
        """A coroutine under way."""
        from twisted.internet.defer import ensureDeferred

        return ensureDeferred(awaitable)

"""All objects of accounts on a fresh database, and a vocabulary to talk about them."""

from typing import Any

from twisted.internet import reactor
from twisted.internet.task import Clock

from homeserver.accounts.access_tokens import AccessTokens
from homeserver.accounts.account_data import AccountData
from homeserver.accounts.authentication_sessions import AuthenticationSessions
from homeserver.accounts.authentication_stages import (
    DummyStage,
    PasswordStage,
    RecaptchaStage,
    RegistrationTokenStage,
    TermsStage,
)
from homeserver.accounts.caller import Caller
from homeserver.accounts.credentials import Credentials
from homeserver.accounts.deactivation import Deactivation
from homeserver.accounts.devices import Devices
from homeserver.accounts.last_seen import LastSeen
from homeserver.accounts.login import Login
from homeserver.accounts.passwords import Passwords
from homeserver.accounts.profiles import Profiles
from homeserver.accounts.registration import NewUser, Registration
from homeserver.accounts.registration_tokens import RegistrationTokens
from homeserver.accounts.sessions import DeviceRequest, Session, Sessions
from homeserver.accounts.sign_up import SignUp
from homeserver.accounts.user_interactive_auth import UserInteractiveAuth
from homeserver.config.limits import Rate
from homeserver.config.settings import Passwords as PasswordSettings
from homeserver.config.settings import Policy
from homeserver.config.settings import Registration as RegistrationSettings
from homeserver.config.settings import Tokens as TokenSettings
from homeserver.protocol.errors import MatrixError
from homeserver.streams.log import Log
from homeserver.web.rate_limits import RateLimits
from tests.support.postgres import DatabaseTestCase

SERVER = "example.org"
ALICE = f"@alice:{SERVER}"
BOB = f"@bob:{SERVER}"
PASSWORD = "correct horse"
TERMS = (Policy(id="privacy", version="1.2", name="Privacy", url="https://example.org/privacy"),)


class Somewhere:
    """A request, as far as an authenticator looks at it."""

    address = "192.0.2.7"

    def header(self, name: bytes) -> str | None:
        return "Weechat/4\0" if name == b"User-Agent" else None


class AccountsTestCase(DatabaseTestCase):
    """A test with everything that accounts are made of. Time stands still until it is advanced."""

    registration_settings = RegistrationSettings(enabled=True, guests=True)

    async def setUp(self) -> None:
        await super().setUp()
        self.clock = Clock()
        self.clock.advance(1_700_000_000)
        self.log = Log(reactor, self.db.write_batch, 0)  # type: ignore[arg-type]
        self.build()

    async def clean_up(self) -> None:
        await self.log.settled()
        await super().clean_up()

    def build(self) -> None:
        """Make all objects, as at a start of the server."""
        db, clock, log = self.db, self.clock, self.log
        self.last_seen = LastSeen(db, clock)
        self.devices = Devices(db, log, self.last_seen)
        self.tokens = AccessTokens(db, clock, self.last_seen)
        self.sessions = Sessions(db, clock, TokenSettings(), self.devices, self.tokens)
        self.passwords = Passwords(reactor, PasswordSettings(hash_cost="lowest"))
        limits = RateLimits(clock, {"password": Rate(per_second=0.1, burst=5)})
        self.credentials = Credentials(
            db,
            clock,
            self.passwords,
            token_lifetime=120,
            check_limit=lambda user_id: limits.check("password", user_id),
        )
        self.login = Login(db, SERVER, self.credentials, self.sessions, with_password=True)
        self.registration = Registration(
            db, clock, SERVER, self.passwords, self.sessions, self.tokens
        )
        self.registration_tokens = RegistrationTokens(db, clock)
        stages = (
            DummyStage(),
            PasswordStage(self.credentials, SERVER),
            RegistrationTokenStage(self.registration_tokens),
            TermsStage(self.registration_settings.terms),
            RecaptchaStage("site key", self.is_solved),
        )
        self.uia = UserInteractiveAuth(AuthenticationSessions(db, clock), stages)
        self.sign_up = SignUp(
            self.registration_settings, self.uia, self.registration, self.sessions, self.passwords
        )
        self.profiles = Profiles(db, log, SERVER)
        self.account_data = AccountData(db, log)
        self.deactivation = Deactivation(db, clock, self.sessions, self.profiles, self.account_data)
        for reader in (self.tokens, self.profiles, self.account_data):
            log.subscribe(reader.read)

    async def is_solved(self, response: str) -> bool:
        """The service behind the captcha."""
        return response == "I see three bicycles"

    async def user(self, name: str = "alice", **device: Any) -> Session:
        """A user who has just registered, and is logged in."""
        new = NewUser(name, PASSWORD)
        _, session = await self.registration.register(new, DeviceRequest(**device))
        assert session is not None
        return session

    async def caller(self, session: Session) -> Caller:
        """Who makes a request with the token of a session."""
        return await self.authenticate(session.tokens.access_token)

    async def authenticate(self, token: str) -> Caller:
        """Who makes a request with a token."""
        found = self.tokens.authenticate(token, Somewhere())
        return found if isinstance(found, Caller) else await found

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

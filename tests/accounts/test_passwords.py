"""Passwords: what is stored of them, and at what cost."""

from twisted.internet import reactor
from twisted.internet.defer import gatherResults

from homeserver.accounts.credentials.passwords import Passwords
from homeserver.accounts.credentials.verification import PasswordAndTokenVerifier
from homeserver.config.sections.accounts import PasswordSettings
from homeserver.protocol.errors import WeakPassword
from homeserver.storage.accounts.users import find_user
from tests.accounts.support import ALICE, PASSWORD, AccountsTestCase


class PasswordsTests(AccountsTestCase):
    async def test_a_password_of_any_script_works(self) -> None:
        """Passwords are text, not ASCII."""
        password = "übers3kr1t\U0001f512"
        stored = await self.passwords.hash(password)

        self.assertTrue(await self.passwords.matches(stored, password))
        self.assertFalse(await self.passwords.matches(stored, password[:-1]))

    async def test_a_stored_password_cannot_be_read(self) -> None:
        """A stolen table reveals nothing, not even which users share a password."""
        first, second = await self.passwords.hash(PASSWORD), await self.passwords.hash(PASSWORD)

        self.assertNotIn(PASSWORD, first)
        self.assertNotEqual(first, second)

    async def test_nothing_matches_where_there_is_no_password(self) -> None:
        """Accounts of bridges have none, so no password must open them."""
        self.assertFalse(await self.passwords.matches(None, ""))
        self.assertFalse(await self.passwords.matches("not a hash", ""))

    async def test_short_and_endless_passwords_are_refused(self) -> None:
        """Short ones protect no account, endless ones cost the server."""
        for password in ("1234567", "x" * 1025):
            self.assertRaises(WeakPassword, self.passwords.check_strength, password)
        self.passwords.check_strength("12345678")
        self.assertFalse(await self.passwords.matches(await self.passwords.hash("x"), "x" * 1025))

    async def test_log_in_at_a_new_cost_hashes_the_password_again(self) -> None:
        """A higher cost protects all accounts without their users' doing anything."""
        await self.user()
        costly = Passwords(reactor, PasswordSettings())
        credentials = PasswordAndTokenVerifier(
            self.db, self.clock, costly, token_lifetime=120, check_limit=lambda _: None
        )

        await gatherResults(
            [self.started(credentials.check_password(ALICE, PASSWORD)) for _ in range(3)]
        )

        user = await self.db.run(find_user, ALICE)
        assert user is not None
        assert user.password_hash is not None
        self.assertFalse(costly.is_outdated(user.password_hash))
        await credentials.check_password(ALICE, PASSWORD)

"""Accounts from the command line."""

from homeserver.accounts.registration import administration
from homeserver.protocol.errors import InvalidUsername
from tests.accounts.support import ALICE, BOB, PASSWORD, SERVER, AccountsTestCase


class AdministrationTests(AccountsTestCase):
    async def add(self, user_id: str, **how: bool) -> None:
        """Add an account."""
        await administration.add_user(
            self.db, self.passwords, user_id, PASSWORD, now_ms=1_700_000_000_000, **how
        )

    def test_a_localpart_and_a_user_id_name_the_same_account(self) -> None:
        """People need not type the name of their own server."""
        for name in ("alice", "Alice", ALICE):
            self.assertEqual(administration.local_user_id(name, SERVER), ALICE)
        for name in ("@alice:elsewhere.example", "@alice", "al ice", ""):
            with self.assertRaises(InvalidUsername):
                administration.local_user_id(name, SERVER)

    def test_a_user_of_a_bridge_is_named_by_the_whole_user_id(self) -> None:
        """Such names have capitals, and characters that no other name has."""
        for user_id in (f"@_irc_Bob[away]:{SERVER}", ALICE):
            self.assertEqual(administration.existing_user_id(user_id, SERVER), user_id)
        self.assertEqual(administration.existing_user_id("Alice", SERVER), ALICE)
        for name in ("@Bob:elsewhere.example", "@Bob", "Bob[away]"):
            with self.assertRaises(InvalidUsername):
                administration.existing_user_id(name, SERVER)

    async def test_an_added_user_can_log_in(self) -> None:
        """The first account of a server is made like this."""
        await self.add(ALICE, is_admin=True)

        await self.credentials.check_password(ALICE, PASSWORD)
        [user] = await administration.list_users(self.db)
        self.assertTrue(user.is_admin)

    async def test_users_are_listed_in_order(self) -> None:
        """A list that a person can read."""
        await self.add(BOB)
        await self.add(ALICE)

        users = await administration.list_users(self.db)

        self.assertEqual([user.user_id for user in users], [ALICE, BOB])

    async def test_a_name_is_given_out_once(self) -> None:
        """Adding a user never overwrites one."""
        await self.add(ALICE)

        await self.refused(self.add(ALICE), "M_USER_IN_USE")

    async def test_a_new_password_replaces_the_old_one_and_its_sessions(self) -> None:
        """The fix for a compromised account."""
        session = await self.user()

        await administration.set_password(self.db, self.passwords, ALICE, "battery staple")

        await self.credentials.check_password(ALICE, "battery staple")
        await self.refused(self.credentials.check_password(ALICE, PASSWORD), "M_FORBIDDEN")
        await self.refused(self.authenticate(session.tokens.access_token), "M_UNKNOWN_TOKEN")

    async def test_unknown_and_deactivated_users_get_different_errors(self) -> None:
        """The command says what is wrong."""
        await self.refused(administration.deactivate(self.db, ALICE), "M_NOT_FOUND")
        await self.add(ALICE)
        await administration.deactivate(self.db, ALICE)

        error = await self.refused(administration.deactivate(self.db, ALICE), "M_NOT_FOUND")

        self.assertIn("was deactivated", str(error))

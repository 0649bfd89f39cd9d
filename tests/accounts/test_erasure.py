"""Users who requested erasure."""

from homeserver.accounts.status.erasure import ErasedUsers
from homeserver.accounts.user_data.account_data import AccountData, AccountDataErased
from tests.accounts.support import ALICE, BOB, AccountsTestCase


class ErasureTests(AccountsTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        await self.user()
        await self.user("bob")

    async def test_erasure_applies_at_once(self) -> None:
        """A user who joins just after the erasure does not see the events."""
        self.assertFalse(self.erased)

        await self.deactivation.deactivate(ALICE, erase=True)
        await self.deactivation.deactivate(BOB, erase=False)

        self.assertTrue(self.erased)
        self.assertIn(ALICE, self.erased)
        self.assertNotIn(BOB, self.erased)

    async def test_erasure_applies_in_other_processes(self) -> None:
        """They hide the events, and forget the account data that they have in memory."""
        erased, account_data = ErasedUsers(self.db, self.log), AccountData(self.db, self.log)
        for reader in (erased, account_data):
            self.log.subscribe(reader.apply)
        ignored = {"ignored_users": {BOB: {}}}
        await self.account_data.set(ALICE, None, "m.ignored_user_list", ignored)
        assert await account_data.ignored_users(ALICE) == {BOB}

        await self.deactivation.deactivate(ALICE, erase=True)

        self.assertIn(ALICE, erased)
        self.assertIsNone(await account_data.content(ALICE, "m.ignored_user_list"))
        self.assertEqual(await account_data.ignored_users(ALICE), frozenset())

    async def test_account_data_stays_erased_after_a_restart(self) -> None:
        """Data that was set while the erasure was being written included."""
        for user_id in (ALICE, BOB):
            await self.account_data.set(user_id, None, "org.first", {})
        setting = self.started(self.account_data.set(ALICE, None, "org.second", {}))
        await self.account_data.erase(ALICE)
        await setting
        self.build()

        self.assertEqual(await self.account_data.of_room(ALICE, None), {})
        self.assertEqual(await self.account_data.of_room(BOB, None), {"org.first": b"{}"})

    async def test_account_data_that_was_set_after_an_erasure_stays(self) -> None:
        """It was loaded before the erasure was published."""
        await self.account_data.erase(ALICE)
        erased = AccountDataErased(self.log.position, ALICE)
        ignored = {"ignored_users": {BOB: {}}}
        await self.account_data.set(ALICE, None, "m.ignored_user_list", ignored)
        account_data = AccountData(self.db, self.log)
        await account_data.ignored_users(ALICE)

        account_data.apply([erased])

        self.assertEqual(await account_data.ignored_users(ALICE), {BOB})

    async def test_erasure_outlives_a_restart(self) -> None:
        """A restart does not show the events of erased users again."""
        await self.deactivation.deactivate(ALICE, erase=True)

        erased = ErasedUsers(self.db, self.log)
        await erased.load()

        self.assertIn(ALICE, erased)

"""Users who requested erasure."""

from homeserver.accounts.status.erasure import ErasedUsers
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

    async def test_erasure_outlives_a_restart(self) -> None:
        """A restart does not show the events of erased users again."""
        await self.deactivation.deactivate(ALICE, erase=True)

        erased = ErasedUsers(self.db)
        await erased.load()

        self.assertIn(ALICE, erased)

"""Who asked to be erased."""

from homeserver.accounts.status.erasure import ErasedUsers
from tests.accounts.support import ALICE, BOB, AccountsTestCase


class ErasureTests(AccountsTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        await self.user()
        await self.user("bob")

    async def test_who_asks_to_be_erased_is_noted_at_once(self) -> None:
        """Whoever joins a moment later sees nothing any more."""
        self.assertFalse(self.erased)

        await self.deactivation.deactivate(ALICE, erase=True)
        await self.deactivation.deactivate(BOB, erase=False)

        self.assertTrue(self.erased)
        self.assertIn(ALICE, self.erased)
        self.assertNotIn(BOB, self.erased)

    async def test_it_is_known_after_a_restart(self) -> None:
        """Nobody comes back by a restart of the server."""
        await self.deactivation.deactivate(ALICE, erase=True)

        erased = ErasedUsers(self.db)
        await erased.load()

        self.assertIn(ALICE, erased)

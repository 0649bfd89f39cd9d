"""Passwords that are tried, and how often."""

from homeserver.protocol.errors import MatrixError
from tests.accounts.support import ALICE, BOB, PASSWORD, AccountsTestCase


class GuessingTests(AccountsTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        await self.user()
        await self.user("bob")

    async def guess(self, user_id: str, times: int) -> None:
        """Try wrong passwords."""
        for _ in range(times):
            await self.refused(self.credentials.check_password(user_id, "wrong"), "M_FORBIDDEN")

    async def test_guesses_for_one_account_are_limited(self) -> None:
        """An attacker with thousands of addresses has no more guesses than others."""
        await self.guess(ALICE, 5)

        refused = self.credentials.check_password(ALICE, PASSWORD)

        await self.refused(refused, "M_LIMIT_EXCEEDED", 429)

    async def test_other_accounts_are_not_concerned(self) -> None:
        """An attack on one is no trouble for the rest."""
        await self.guess(ALICE, 5)

        await self.credentials.check_password(BOB, PASSWORD)

    async def test_an_account_that_does_not_exist_has_the_same_limit(self) -> None:
        """The limit does not reveal which accounts exist."""
        await self.guess("@nobody:example.org", 5)

        refused = self.credentials.check_password("@nobody:example.org", PASSWORD)

        await self.refused(refused, "M_LIMIT_EXCEEDED", 429)

    async def test_after_a_while_the_owner_gets_in(self) -> None:
        """The limit slows an attack down; it does not lock the owner out for long."""
        await self.guess(ALICE, 5)
        self.clock.advance(10)

        try:
            await self.credentials.check_password(ALICE, PASSWORD)
        except MatrixError as error:
            self.fail(str(error))

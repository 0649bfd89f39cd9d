"""Users who accept no invites."""

from homeserver.accounts.user_data.invite_permission import InvitePermission
from tests.accounts.support import ALICE, BOB, SERVER, AccountsTestCase

CONFIG = "m.invite_permission_config"


class InvitePermissionTests(AccountsTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.permission = InvitePermission(self.account_data, SERVER)

    async def test_who_blocks_invites_gets_none(self) -> None:
        """A user under attack has peace with one setting."""
        await self.account_data.set(ALICE, None, CONFIG, {"default_action": "block"})

        await self.refused(self.permission.check(ALICE, BOB), "M_INVITE_BLOCKED", 403)

    async def test_others_are_invited_as_ever(self) -> None:
        """Only the exact word blocks."""
        await self.permission.check(BOB, BOB)
        for content in ({}, {"default_action": "allow"}, {"default_action": ["block"]}):
            await self.account_data.set(ALICE, None, CONFIG, content)
            await self.permission.check(ALICE, BOB)

    async def test_it_can_be_taken_back(self) -> None:
        """Clients set the content without the word."""
        await self.account_data.set(ALICE, None, CONFIG, {"default_action": "block"})
        await self.account_data.set(ALICE, None, CONFIG, {})

        self.assertFalse(await self.permission.blocks(ALICE))

    async def test_account_data_of_a_room_says_nothing(self) -> None:
        """The setting is one of the whole account."""
        await self.account_data.set(ALICE, "!r:example.org", CONFIG, {"default_action": "block"})

        await self.permission.check(ALICE, BOB)

    async def test_remote_users_are_not_checked(self) -> None:
        """Their own server refuses the invite."""
        await self.permission.check("@alice:elsewhere.example", BOB)

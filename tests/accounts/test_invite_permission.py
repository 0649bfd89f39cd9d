"""Users who accept no invites."""

from homeserver.accounts.user_data.invite_permission import InvitePermission
from homeserver.protocol.proposals.invite_filter import InviteAction
from tests.accounts.support import ALICE, BOB, SERVER, AccountsTestCase

CONFIG = "m.invite_permission_config"


class InvitePermissionTests(AccountsTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.permission = InvitePermission(self.account_data, SERVER)

    async def test_who_blocks_invites_gets_none(self) -> None:
        """A user under attack has peace with one setting."""
        await self.account_data.set(ALICE, None, CONFIG, {"default_action": "block"})

        await self.refused(self.permission.check(ALICE, BOB, BOB), "M_INVITE_BLOCKED", 403)

    async def test_others_are_invited_as_ever(self) -> None:
        """Only the exact word blocks."""
        await self.permission.check(BOB, BOB, BOB)
        for content in ({}, {"default_action": "allow"}, {"default_action": ["block"]}):
            await self.account_data.set(ALICE, None, CONFIG, content)
            await self.permission.check(ALICE, BOB, BOB)

    async def test_it_can_be_taken_back(self) -> None:
        """Clients set the content without the word."""
        await self.account_data.set(ALICE, None, CONFIG, {"default_action": "block"})
        await self.account_data.set(ALICE, None, CONFIG, {})

        await self.permission.check(ALICE, BOB, BOB)

    async def test_a_filter_blocks_single_users(self) -> None:
        """Each name of the type counts, whichever a client knows."""
        for name in (CONFIG, "org.matrix.msc4155.invite_permission_config"):
            await self.account_data.set(ALICE, None, name, {"blocked_users": [BOB]})
            await self.refused(self.permission.check(ALICE, BOB, BOB), "M_INVITE_BLOCKED", 403)
            await self.permission.check(ALICE, "@carol:example.org", BOB)

            await self.account_data.set(ALICE, None, name, {})
            await self.permission.check(ALICE, BOB, BOB)

    async def test_ignored_users_are_not_refused(self) -> None:
        """They do not find out that they are ignored, even if a filter would block them."""
        ignored = {"ignored_users": {BOB: {}}}
        await self.account_data.set(ALICE, None, "m.ignored_user_list", ignored)
        await self.account_data.set(ALICE, None, CONFIG, {"blocked_users": [BOB]})

        await self.permission.check(ALICE, BOB, BOB)

        action = await self.account_data.invite_action(ALICE, BOB)
        self.assertIs(action, InviteAction.IGNORE)

    async def test_an_erased_user_has_no_filter(self) -> None:
        """What was compiled from the account data ends with it."""
        await self.account_data.set(ALICE, None, CONFIG, {"blocked_users": [BOB]})
        await self.refused(self.permission.check(ALICE, BOB, BOB), "M_INVITE_BLOCKED", 403)

        await self.account_data.erase(ALICE)

        await self.permission.check(ALICE, BOB, BOB)

    async def test_a_huge_filter_is_refused(self) -> None:
        """Each invite and each sync of a pending one would have to compile it."""
        content = {"blocked_users": ["@a:b.example"] * 5_000}

        await self.refused(self.account_data.set(ALICE, None, CONFIG, content), "M_TOO_LARGE", 413)

    async def test_account_data_of_a_room_says_nothing(self) -> None:
        """The setting is one of the whole account."""
        await self.account_data.set(ALICE, "!r:example.org", CONFIG, {"default_action": "block"})

        await self.permission.check(ALICE, BOB, BOB)

    async def test_remote_users_are_not_checked(self) -> None:
        """Their own server refuses the invite."""
        await self.permission.check("@alice:elsewhere.example", BOB, BOB)

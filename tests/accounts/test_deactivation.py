"""The end of an account, also when the server dies in the middle of it."""

from homeserver.accounts.login.login import LoginRequest
from homeserver.accounts.registration import administration
from tests.accounts.support import ALICE, PASSWORD, SERVER, AccountsTestCase


class DeactivationTests(AccountsTestCase):
    async def setUp(self) -> None:
        self.left: list[tuple[str, bool]] = []
        self.broken = False
        await super().setUp()
        self.session = await self.user()

    async def leave_rooms(self, user_id: str, erase: bool) -> None:
        if self.broken:
            raise ValueError("rooms cannot be left just now")
        self.left.append((user_id, erase))

    async def test_a_deactivated_account_cannot_log_in_again(self) -> None:
        """A user who deactivates the account has no sessions left."""
        await self.caller(self.session)
        token = await self.credentials.issue_token(ALICE)

        await self.deactivation.deactivate(ALICE, erase=False)

        await self.refused(self.authenticate(self.session.tokens.access_token), "M_UNKNOWN_TOKEN")
        by_password = LoginRequest("m.login.password", user="alice", password=PASSWORD)
        await self.refused(self.login.log_in(by_password), "M_FORBIDDEN", 403)
        by_token = LoginRequest("m.login.token", token=token)
        await self.refused(self.login.log_in(by_token), "M_FORBIDDEN", 403)
        self.assertEqual(self.left, [(ALICE, False)])

    async def test_the_profile_goes(self) -> None:
        """The name and avatar of a deactivated user are not shown."""
        await self.profiles.set_field(ALICE, "displayname", "Alice")

        await self.deactivation.deactivate(ALICE, erase=False)

        await self.refused(self.profiles.get(ALICE, None, ALICE), "M_NOT_FOUND", 404)

    async def test_erasure_takes_account_data_too(self) -> None:
        """Private data of an erased user is of no use to others."""
        await self.account_data.set(ALICE, None, "org.example", {"a": 1})

        await self.deactivation.deactivate(ALICE, erase=True)

        self.assertIsNone(await self.account_data.content(ALICE, "org.example"))
        self.assertEqual(self.left, [(ALICE, True)])

    async def test_what_could_not_be_finished_is_tried_again(self) -> None:
        """A failure does not leave a user in some rooms."""
        self.broken = True
        await self.deactivation.deactivate(ALICE, erase=True)
        self.flushLoggedErrors(ValueError)
        self.broken = False

        await self.deactivation.finish_all()
        await self.deactivation.finish_all()

        self.assertEqual(self.left, [(ALICE, True)])

    async def test_a_deactivation_from_the_command_line_is_finished_by_the_server(self) -> None:
        """The command does not know the rooms; the server does."""
        await administration.deactivate(self.db, ALICE)

        await self.deactivation.finish_all()

        self.assertEqual(self.left, [(ALICE, False)])
        self.assertEqual(await self.devices.all_of(ALICE), [])

    async def test_an_unknown_user_cannot_be_deactivated(self) -> None:
        """A mistyped name gets an error."""
        await self.refused(
            self.deactivation.deactivate(f"@nobody:{SERVER}", erase=False), "M_NOT_FOUND", 404
        )

"""Logging in to devices, refreshing tokens, logging out."""

from msgspec.structs import replace

from homeserver.accounts.sessions import login_sessions
from homeserver.accounts.sessions.login_sessions import DeviceRequest, LoginSession
from tests.accounts.support import ALICE, BOB, AccountsTestCase


class LoginToDevicesTests(AccountsTestCase):
    async def test_a_device_has_a_name_from_the_start(self) -> None:
        """The list of devices is readable without renaming them first."""
        await self.user(device_id="PHONE", display_name="My phone")

        devices = await self.devices.all_of(ALICE)

        self.assertEqual([(d.device_id, d.display_name) for d in devices], [("PHONE", "My phone")])

    async def test_logging_in_to_a_device_again_ends_its_old_token(self) -> None:
        """A device has one session: the old token is invalid."""
        first = await self.user(device_id="PHONE")
        await self.caller(first)

        second = await self.sessions.open(ALICE, DeviceRequest("PHONE", "Another name"))

        await self.refused(self.authenticate(first.tokens.access_token), "M_UNKNOWN_TOKEN")
        self.assertEqual((await self.caller(second)).device_id, "PHONE")

    async def test_devices_are_bounded_in_number(self) -> None:
        """A program that logs in endlessly fills neither the disk nor the lists of other users."""
        self.patch(login_sessions, "MAX_DEVICES", 2)
        await self.user(device_id="PHONE")
        await self.sessions.open(ALICE, DeviceRequest("LAPTOP"))

        attempt = self.sessions.open(ALICE, DeviceRequest("THIRD"))

        await self.refused(attempt, "M_USER_LIMIT_EXCEEDED", 403)
        await self.sessions.open(ALICE, DeviceRequest("PHONE"))
        self.assertEqual(len(await self.devices.all_of(ALICE)), 2)

    async def test_the_name_of_a_known_device_stays(self) -> None:
        """The initial name is for new devices; a user may have chosen a better one since."""
        await self.user(device_id="PHONE", display_name="My phone")

        await self.sessions.open(ALICE, DeviceRequest("PHONE", "Another name"))

        self.assertEqual((await self.devices.get(ALICE, "PHONE")).display_name, "My phone")

    async def test_the_same_device_id_of_two_users_is_two_devices(self) -> None:
        """One user's log-out must not touch another's session."""
        alice = await self.user("alice", device_id="PHONE")
        bob = await self.user("bob", device_id="PHONE")

        await self.sessions.close(await self.caller(alice))

        self.assertEqual((await self.caller(bob)).user_id, BOB)

    async def test_a_device_id_may_not_be_endless(self) -> None:
        """It is in many tables, and in events for other users."""
        request = DeviceRequest("X" * 256)

        await self.refused(self.sessions.open(ALICE, request), "M_INVALID_PARAM", 400)

    async def test_logging_out_everywhere_ends_every_session(self) -> None:
        """A user who lost a device can end its session."""
        first = await self.user()
        second = await self.sessions.open(ALICE, DeviceRequest())

        await self.sessions.close_all(ALICE)

        for session in (first, second):
            await self.refused(self.authenticate(session.tokens.access_token), "M_UNKNOWN_TOKEN")
        self.assertEqual(await self.devices.all_of(ALICE), [])

    async def test_logging_out_the_others_leaves_the_own_session(self) -> None:
        """A user who changes the password keeps the current session."""
        own = await self.user()
        other = await self.sessions.open(ALICE, DeviceRequest())

        await self.sessions.close_all(ALICE, but=await self.caller(own))

        self.assertEqual((await self.caller(own)).user_id, ALICE)
        await self.refused(self.authenticate(other.tokens.access_token), "M_UNKNOWN_TOKEN")


class RefreshTests(AccountsTestCase):
    async def refreshable(self) -> LoginSession:
        """A session of a client that can refresh."""
        return await self.user(device_id="PHONE", wants_refresh_token=True)

    async def refresh(self, session: LoginSession) -> LoginSession:
        """The session with its next pair of tokens."""
        assert session.tokens.refresh_token is not None
        tokens = await self.sessions.refresh(session.tokens.refresh_token)
        return replace(session, tokens=tokens)

    async def test_without_asking_there_is_no_refresh_token(self) -> None:
        """Clients that cannot refresh get a token that does not expire."""
        session = await self.user()

        self.assertIsNone(session.tokens.refresh_token)
        self.assertIsNone(session.tokens.expires_in_ms)

    async def test_an_expired_token_asks_for_a_refresh_not_for_a_log_in(self) -> None:
        """The client keeps its keys and continues with a new token."""
        session = await self.refreshable()
        self.clock.advance(3600)

        error = await self.refused(
            self.authenticate(session.tokens.access_token), "M_UNKNOWN_TOKEN", 401
        )

        self.assertTrue(error.body()["soft_logout"])

    async def test_a_refresh_gives_tokens_of_the_same_device(self) -> None:
        """The device, for which messages are encrypted, stays the same."""
        session = await self.refresh(await self.refreshable())

        self.assertEqual((await self.caller(session)).device_id, "PHONE")

    async def test_a_lost_answer_can_be_asked_for_again(self) -> None:
        """Until the new tokens are used the old refresh token is good."""
        first = await self.refreshable()
        lost = await self.refresh(first)

        second = await self.refresh(first)

        self.assertEqual((await self.caller(second)).device_id, "PHONE")
        await self.refused(self.authenticate(lost.tokens.access_token), "M_UNKNOWN_TOKEN")

    async def test_the_first_use_of_the_new_access_token_revokes_the_old_pair(self) -> None:
        """A stolen old token is worth nothing once the client has moved on."""
        first = await self.refreshable()
        await self.caller(first)
        second = await self.refresh(first)

        await self.caller(second)

        await self.refused(self.authenticate(first.tokens.access_token), "M_UNKNOWN_TOKEN")
        await self.refused(self.refresh(first), "M_UNKNOWN_TOKEN", 401)

    async def test_the_first_use_of_the_new_refresh_token_revokes_the_old_pair(self) -> None:
        """A client may refresh twice without a request in between."""
        first = await self.refreshable()
        await self.caller(first)
        second = await self.refresh(first)

        third = await self.refresh(second)

        await self.refused(self.refresh(first), "M_UNKNOWN_TOKEN", 401)
        await self.refused(self.authenticate(first.tokens.access_token), "M_UNKNOWN_TOKEN")
        self.assertEqual((await self.caller(third)).device_id, "PHONE")

    async def test_logging_out_ends_the_refresh_token_too(self) -> None:
        """A refresh token must not log in again after a log-out."""
        session = await self.refreshable()
        await self.sessions.close(await self.caller(session))

        await self.refused(self.refresh(session), "M_UNKNOWN_TOKEN", 401)

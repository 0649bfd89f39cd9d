"""The user and device of an access token, and the end of its validity."""

from homeserver.accounts.sessions.access_tokens import GRANT_SECONDS
from homeserver.accounts.sessions.requester import Requester
from homeserver.storage.accounts.access_tokens import delete_access_tokens_of_user
from homeserver.storage.accounts.users import set_locked
from tests.accounts.support import ALICE, AccountsTestCase, Somewhere


class AccessTokensTests(AccountsTestCase):
    async def test_a_token_stands_for_its_user_and_device(self) -> None:
        """Requests of a client act for the account that logged in."""
        session = await self.user(device_id="PHONE")

        caller = await self.caller(session)

        self.assertEqual((caller.user_id, caller.device_id), (ALICE, "PHONE"))

    async def test_a_known_token_needs_no_database(self) -> None:
        """Every request begins with this, so it must cost next to nothing."""
        session = await self.user()
        await self.caller(session)

        found = self.tokens.authenticate(session.tokens.access_token, Somewhere())

        self.assertIsInstance(found, Requester)

    async def test_an_unknown_token_is_refused_and_remembered(self) -> None:
        """A client that keeps using an invalid token does not cost a query each time."""
        await self.refused(self.authenticate("nobody"), "M_UNKNOWN_TOKEN", 401)
        queries = self.db.runs

        error = await self.refused(self.authenticate("nobody"), "M_UNKNOWN_TOKEN", 401)

        self.assertEqual(self.db.runs, queries)
        self.assertFalse(error.body()["soft_logout"])

    async def test_a_token_ends_with_its_device(self) -> None:
        """A user who logs out is logged out at once, not when a cache expires."""
        session = await self.user()
        await self.sessions.close(await self.caller(session))

        await self.refused(self.authenticate(session.tokens.access_token), "M_UNKNOWN_TOKEN")

    async def test_a_look_up_that_races_with_a_log_out_is_not_kept(self) -> None:
        """A token that was read just before it ended must not live on in memory."""
        session = await self.user()
        caller = await self.caller(session)
        self.build()
        looking_up = self.started(self.authenticate(session.tokens.access_token))

        await self.sessions.close(caller)
        await looking_up.addErrback(lambda failure: None)

        await self.refused(self.authenticate(session.tokens.access_token), "M_UNKNOWN_TOKEN")

    async def test_a_locked_user_gets_a_soft_logout(self) -> None:
        """Locking is reversible: clients must not throw their keys away."""
        session = await self.user()
        await self.db.run(set_locked, ALICE, True)

        error = await self.refused(
            self.authenticate(session.tokens.access_token), "M_USER_LOCKED", 401
        )

        self.assertTrue(error.body()["soft_logout"])

    async def test_a_locked_user_may_log_out(self) -> None:
        """The one thing that locked accounts can still do."""
        session = await self.user()
        await self.db.run(set_locked, ALICE, True)

        await self.sessions.close(await self.tokens.get_caller(session.tokens.access_token))

        await self.refused(self.authenticate(session.tokens.access_token), "M_UNKNOWN_TOKEN")

    async def test_what_another_process_revoked_ends_within_minutes(self) -> None:
        """A password set on the command line logs out a thief of the old one."""
        session = await self.user()
        await self.caller(session)
        await self.db.run(delete_access_tokens_of_user, ALICE)

        self.clock.advance(GRANT_SECONDS)

        await self.refused(self.authenticate(session.tokens.access_token), "M_UNKNOWN_TOKEN")

    async def test_requests_are_noted_for_the_list_of_devices(self) -> None:
        """Users recognise a stranger's device by when and where it was last seen."""
        session = await self.user(device_id="PHONE")
        await self.caller(session)

        before_flush = await self.devices.get(ALICE, "PHONE")
        await self.last_seen.stop()
        after_flush = await self.devices.get(ALICE, "PHONE")

        self.assertEqual(before_flush.last_seen_ip, "192.0.2.7")
        self.assertEqual(before_flush.last_seen_ms, 1_700_000_000_000)
        self.assertEqual(after_flush, before_flush)

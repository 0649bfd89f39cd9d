"""Looking up the sessions of an account."""

from homeserver.storage.accounts.users import set_admin
from tests.accounts.api import V3, ApiTestCase
from tests.accounts.support import ALICE, BOB


class WhoIsTests(ApiTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.alice = await self.register(device_id="PHONE")
        self.bob = await self.register("bob")

    async def test_users_see_their_own_sessions(self) -> None:
        """A device that one does not know, or an address, gives an intruder away."""
        token = self.alice["access_token"]

        response = await self.ok("GET", f"{V3}/admin/whois/{ALICE}", None, token)

        self.assertEqual(response["user_id"], ALICE)
        [connection] = response["devices"]["PHONE"]["sessions"][0]["connections"]
        self.assertEqual(connection["ip"], "127.0.0.1")
        self.assertEqual(connection["last_seen"], 1_700_000_000_000)
        self.assertIsInstance(connection["user_agent"], str)

    async def test_administrators_see_all_users_sessions(self) -> None:
        """An administrator who helps a user has to see what the user sees."""
        await self.db.run(set_admin, BOB, True)
        await self.ok("GET", f"{V3}/account/whoami", None, self.alice["access_token"])
        await self.last_seen.flush()

        response = await self.ok("GET", f"{V3}/admin/whois/{ALICE}", None, self.bob["access_token"])

        self.assertEqual(len(response["devices"]["PHONE"]["sessions"][0]["connections"]), 1)

    async def test_others_see_nothing_not_even_whether_there_is_such_a_user(self) -> None:
        """The addresses of a user are private."""
        for user_id in (ALICE, "@nobody:example.org"):
            path = f"{V3}/admin/whois/{user_id}"
            refusal = await self.refusal("GET", path, None, self.bob["access_token"])
            self.assertEqual(refusal, (403, "M_FORBIDDEN"))

    async def test_a_device_that_was_never_seen_has_no_connections(self) -> None:
        """It was logged in, and did nothing since."""
        await self.db.run(set_admin, BOB, True)

        response = await self.ok("GET", f"{V3}/admin/whois/{ALICE}", None, self.bob["access_token"])

        self.assertEqual(response["devices"], {"PHONE": {"sessions": [{"connections": []}]}})

    async def test_an_unknown_user_is_not_found(self) -> None:
        """An administrator who mistypes a name gets an error."""
        await self.db.run(set_admin, BOB, True)

        refusal = await self.refusal(
            "GET", f"{V3}/admin/whois/@nobody:example.org", None, self.bob["access_token"]
        )

        self.assertEqual(refusal, (404, "M_NOT_FOUND"))


class UserAgentTests(ApiTestCase):
    async def test_what_a_client_says_of_itself_is_stored_as_far_as_it_can_be_shown(self) -> None:
        """A header may hold anything."""
        session = await self.user(device_id="PHONE")
        await self.caller(session)

        await self.last_seen.flush()

        device = await self.devices.get(ALICE, "PHONE")
        self.assertEqual(device.last_seen_agent, "Weechat/4")

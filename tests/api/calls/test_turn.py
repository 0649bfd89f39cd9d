"""The TURN server, over the API."""

from tests.support.server import ServerTestCase

PATH = "/voip/turnServer"


class NoTurnServerTests(ServerTestCase):
    async def test_clients_are_told_that_there_is_none(self) -> None:
        """Existing clients expect an empty object, and then call without a relay."""
        alice = await self.register("alice")

        self.assertEqual(await alice.get(PATH), {})
        await self.assert_refused("M_MISSING_TOKEN", self.anybody.get(PATH), 401)


class TurnServerTests(ServerTestCase):
    settings = {  # noqa: RUF012  # as in the base class
        "turn": {
            "uris": ["turn:turn.example.org"],
            "shared_secret": "north",
            "allow_guests": False,
        }
    }

    async def test_users_get_credentials_and_guests_do_not(self) -> None:
        """A relay costs traffic, so it can be closed to users without an account."""
        alice, guest = await self.register("alice"), await self.register_guest()

        credentials = await alice.get(PATH)

        self.assertEqual(credentials["uris"], ["turn:turn.example.org"])
        self.assertTrue(credentials["username"].endswith(f":{alice.user_id}"))
        await self.assert_refused("M_GUEST_ACCESS_FORBIDDEN", guest.get(PATH), 403)

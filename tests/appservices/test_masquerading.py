"""Application services act as their users, and as nobody else."""

from tests.appservices.support import AppserviceTestCase


class MasqueradingTests(AppserviceTestCase):
    async def test_a_ghost_talks(self) -> None:
        """The thinnest bridge: register a ghost, join it, and let it say something."""
        alice = await self.register("alice")
        room = await alice.create_room(public=True)
        bob = await self.ghost("_irc_bob")

        await bob.join(room)
        event_id = await bob.say(room, "hello from IRC")

        event = await alice.get(f"/rooms/{room}/event/{event_id}")
        self.assertEqual(event["sender"], "@_irc_bob:example.org")

    async def test_the_sender_exists_without_registration(self) -> None:
        """The bridge's own user acts at once."""
        who = await self.bot().get("/account/whoami")

        self.assertEqual(who["user_id"], "@_irc_bot:example.org")

    async def test_users_of_others_are_refused(self) -> None:
        """A bridge is no administrator."""
        await self.register("alice")

        await self.assert_refused("M_FORBIDDEN", self.as_user("alice").get("/account/whoami"), 403)
        await self.assert_refused(
            "M_FORBIDDEN", self.as_user("_irc_unknown").get("/account/whoami"), 403
        )
        await self.assert_refused(
            "M_UNKNOWN_DEVICE",
            self.as_user("_irc_bot").get("/account/whoami", device_id="NONE"),
            400,
        )

    async def test_names_of_the_bridge_are_reserved(self) -> None:
        """Nobody impersonates a bridged user."""
        await self.assert_refused("M_EXCLUSIVE", self.register("_irc_carol"), 400)

    async def test_a_reload_replaces_registrations(self) -> None:
        """SIGHUP adds a bridge and removes another."""
        bot = self.bot()
        await bot.get("/account/whoami")
        (self._directory / "appservices.d" / "irc.yaml").unlink()

        self.server.reload()

        await self.assert_refused("M_UNKNOWN_TOKEN", bot.get("/account/whoami"), 401)

"""The room directories of application services, one for each network."""

from typing import Any
from urllib.parse import quote

from tests.appservices.support import AppserviceTestCase, registration
from tests.support.actors import CLIENT, Actor


class RoomDirectoryTests(AppserviceTestCase):
    registrations = (registration("irc"), registration("xmpp"))

    async def _list(
        self, actor: Actor, room: str, network: str = "libera", visibility: Any = "public"
    ) -> None:
        path = f"/directory/list/appservice/{quote(network, safe='')}/{quote(room)}"
        await actor.put(path, {"visibility": visibility})

    async def _listed(self, actor: Actor, **query: Any) -> set[str]:
        page = await actor.post("/publicRooms", query)
        self.assertEqual(page["total_room_count_estimate"], len(page["chunk"]))
        return {room["room_id"] for room in page["chunk"]}

    async def test_the_lists_are_separate(self) -> None:
        """A bridged channel is found in the list of its network, and in that of all."""
        alice = await self.register("alice")
        bot = self.bot()
        plain = await alice.create_room(visibility="public")
        libera, oftc = await bot.create_room(), await bot.create_room(visibility="public")

        await self._list(bot, libera)
        await self._list(bot, libera, "oftc")
        await self._list(bot, oftc, "oftc")

        self.assertEqual(await self._listed(alice), {plain, oftc})
        self.assertEqual(await self._listed(alice, third_party_instance_id="irc|libera"), {libera})
        self.assertEqual(
            await self._listed(alice, third_party_instance_id="irc|oftc"), {libera, oftc}
        )
        for unknown in ("irc|", "irc", "xmpp|libera", "nobody|libera", "|", "irc|libera|"):
            self.assertEqual(await self._listed(alice, third_party_instance_id=unknown), set())
        self.assertEqual(
            await self._listed(alice, include_all_networks=True), {plain, libera, oftc}
        )
        both = {"include_all_networks": True, "third_party_instance_id": "irc|oftc"}
        await self.assert_refused("M_INVALID_PARAM", alice.post("/publicRooms", both), 400)

    async def test_a_room_is_removed_again(self) -> None:
        """By its visibility, or by DELETE, and it stays so after a restart."""
        bot = self.bot()
        first, second = await bot.create_room(), await bot.create_room()
        for room in (first, second):
            await self._list(bot, room)

        await self._list(bot, first, visibility="private")
        self.assertEqual(await self._listed(bot, third_party_instance_id="irc|libera"), {second})
        await bot.delete(f"/directory/list/appservice/libera/{quote(second)}")
        self.assertEqual(await self._listed(bot, third_party_instance_id="irc|libera"), set())
        await self._list(bot, second)
        await self.restart_server()

        found = await self._listed(self.bot(), third_party_instance_id="irc|libera")
        self.assertEqual(found, {second})

    async def test_only_application_services_have_such_lists(self) -> None:
        """And each has only its own."""
        alice = await self.register("alice")
        room = await alice.create_room(public=True)

        await self.assert_refused("M_FORBIDDEN", self._list(alice, room), 403)
        await self._list(self.bot("xmpp"), room, "xmpp")
        await self._list(self.bot(), room, "xmpp", "private")

        found = await self._listed(alice, third_party_instance_id="xmpp|xmpp")
        self.assertEqual(found, {room})

    async def test_a_private_room_of_others_is_not_published(self) -> None:
        """A bridge that knows the id of a room does not show its name to everybody."""
        alice = await self.register("alice")
        room = await alice.create_room(name="Secret")

        await self.assert_refused("M_FORBIDDEN", self._list(self.bot(), room), 403)

    async def test_invalid_requests_are_refused(self) -> None:
        """Errors, never a failure of the server."""
        bot = self.bot()
        room = await bot.create_room()

        await self.assert_refused("M_NOT_FOUND", self._list(bot, "!unknown:example.org"), 404)
        await self.assert_refused("M_INVALID_PARAM", self._list(bot, room, "x" * 256), 400)
        for visibility in ("hidden", None, 1):
            await self.assert_refused("M_BAD_JSON", self._list(bot, room, visibility=visibility))
        path = f"{CLIENT}/directory/list/appservice/libera/{quote(room)}"
        await self.assert_refused("M_MISSING_TOKEN", self.anybody.request("PUT", path, {}), 401)

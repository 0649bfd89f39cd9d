"""Unknown room aliases in the namespace of an application service, which creates the room."""

from urllib.parse import quote

from tests.appservices.queries.support import ROOMS, BridgedTestCase
from tests.support.refused import Refused

CHANNEL = "#_irc_#matrix:example.org"
PATH = f"/directory/room/{quote(CHANNEL, safe='')}"


class UnknownAliasesTests(BridgedTestCase):
    async def test_a_join_creates_the_room(self) -> None:
        """A channel is joined by its name, whether somebody was there before or not."""
        alice = await self.register("alice")
        self.bridge.answers[ROOMS] = self.creates_aliases()

        answer = await alice.post(f"/join/{quote(CHANNEL, safe='')}")

        self.assertEqual((await alice.get(PATH))["room_id"], answer["room_id"])
        (asked,) = self.bridge.requests
        self.assertEqual((asked.method, asked.path), ("GET", ROOMS + CHANNEL))

    async def test_a_look_up_creates_the_room(self) -> None:
        """A client that shows a room before the join finds it, too."""
        self.bridge.answers[ROOMS] = self.creates_aliases()

        target = await self.anybody.get(PATH)

        self.assertEqual(target["servers"], ["example.org"])

    async def test_a_negative_answer_is_remembered(self) -> None:
        """A bridge is not asked again and again for a channel that does not exist."""
        for _ in range(2):
            await self.assert_refused("M_NOT_FOUND", self.anybody.get(PATH), 404)

        self.assertEqual(len(self.bridge.asked(ROOMS)), 1)

    async def test_a_name_in_a_room_is_no_question(self) -> None:
        """A canonical alias that points nowhere is refused at once."""
        alice = await self.register("alice")
        room = await alice.create_room()

        await self.assert_refused(
            "M_BAD_ALIAS", alice.set_state(room, "m.room.canonical_alias", {"alias": CHANNEL})
        )

        self.assertEqual(self.bridge.requests, [])

    async def test_other_aliases_are_not_asked_for(self) -> None:
        """A bridge learns nothing of aliases outside of its namespaces."""
        for alias in ("#other:example.org", "#_irc_x:remote.example"):
            with self.assertRaises(Refused):
                await self.anybody.get(f"/directory/room/{quote(alias)}")

        self.assertEqual(self.bridge.requests, [])

"""The list of notifications over the API."""

from typing import Any
from urllib.parse import quote

from tests.support.server import ServerTestCase


class NotificationsTests(ServerTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.alice = await self.register("alice")
        self.bob = await self.register("bob")
        self.room = await self.alice.create_room(invite=[self.bob])

    async def mention(self, room: str) -> str:
        content = {
            "msgtype": "m.text",
            "body": "bob?",
            "m.mentions": {"user_ids": [self.bob.user_id]},
        }
        return await self.alice.send(room, "m.room.message", content)

    async def notified(self, **query: Any) -> list[str]:
        """Ids of the events, newest first, of one page."""
        if "since" in query:
            query["from"] = query.pop("since")
        response = await self.bob.get("/notifications", **query)
        return [shown["event"]["event_id"] for shown in response["notifications"]]

    async def read(self, event_id: str) -> None:
        await self.bob.post(f"/rooms/{quote(self.room)}/receipt/m.read/{quote(event_id)}")

    async def test_what_notified_is_listed_with_what_was_to_be_done(self) -> None:
        """A panel shows what one has missed."""
        await self.bob.join(self.room)
        event_id = await self.mention(self.room)

        (shown, _) = (await self.bob.get("/notifications"))["notifications"]

        self.assertEqual(shown["event"]["event_id"], event_id)
        self.assertEqual(shown["event"]["content"]["body"], "bob?")
        self.assertEqual(shown["ts"], shown["event"]["origin_server_ts"])
        self.assertEqual((shown["room_id"], shown["read"]), (self.room, False))
        self.assertEqual(
            shown["actions"],
            ["notify", {"set_tweak": "sound", "value": "default"}, {"set_tweak": "highlight"}],
        )

    async def test_what_was_read_is_listed_as_read(self) -> None:
        """Messages read on the phone are not new on the desktop."""
        await self.bob.join(self.room)
        first = await self.alice.say(self.room, "one")
        await self.alice.say(self.room, "two")

        await self.read(first)

        shown = (await self.bob.get("/notifications"))["notifications"]
        self.assertEqual([each["read"] for each in shown], [False, True, True])

    async def test_all_rooms_are_listed_together(self) -> None:
        """Newest first, invites among them; not what was said before one came, or by oneself."""
        await self.alice.say(self.room, "before")
        await self.bob.join(self.room)
        other = await self.alice.create_room()
        first = await self.alice.say(self.room, "one")
        await self.bob.say(self.room, "mine")
        await self.alice.invite(other, self.bob)
        last = await self.alice.say(self.room, "two")

        shown = (await self.bob.get("/notifications"))["notifications"]

        ids = [each["event"]["event_id"] for each in shown]
        self.assertEqual([ids[0], ids[2]], [last, first])
        self.assertEqual(
            [each["event"]["content"].get("membership") for each in shown],
            [None, "invite", None, "invite"],
        )

    async def test_pages_follow_each_other(self) -> None:
        """Nothing is shown twice, or left out."""
        await self.bob.join(self.room)
        sent = [await self.alice.say(self.room, str(number)) for number in range(5)]

        found: list[str] = []
        query: dict[str, Any] = {"limit": 2}
        while True:
            response = await self.bob.get("/notifications", **query)
            found += [shown["event"]["event_id"] for shown in response["notifications"]]
            if "next_token" not in response:
                break
            query["from"] = response["next_token"]

        self.assertEqual(found[:5], sent[::-1])
        self.assertEqual(len(found), 6)

    async def test_highlights_are_listed_alone_if_wanted(self) -> None:
        """A panel of mentions."""
        await self.bob.join(self.room)
        mention = await self.mention(self.room)
        await self.alice.say(self.room, "never mind")

        self.assertEqual(await self.notified(only="highlight"), [mention])

    async def test_bad_queries_are_refused(self) -> None:
        """A client's author learns of the mistake."""
        await self.assert_refused("M_INVALID_PARAM", self.notified(limit=0), 400)
        await self.assert_refused("M_INVALID_PARAM", self.notified(since="yesterday"), 400)

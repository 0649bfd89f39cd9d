"""Notifications reach a gateway: what is pushed, with what body, and what is not."""

from tests.push.push_case import PushTestCase
from tests.support.reactor import pause


class PushTests(PushTestCase):
    async def test_a_message_is_pushed_with_all_that_a_phone_shows(self) -> None:
        """A phone can show a notification without asking the server."""
        await self.bob.put(f"/profile/{self.bob.user_id}/displayname", {"displayname": "Bobby"})
        await self.set_pusher(data={"default_payload": {"aps": {"mutable-content": 1}}})
        event_id = await self.bob.say(self.room, "hello")

        (notification,) = await self.pushed(1)

        device = notification.pop("devices")[0]
        ts = device.pop("pushkey_ts")
        self.assertGreater(ts, 1_600_000_000)
        self.assertEqual(
            device,
            {
                "app_id": "org.example.app",
                "pushkey": "phone",
                "data": {"default_payload": {"aps": {"mutable-content": 1}}},
                "tweaks": {},
            },
        )
        self.assertEqual(
            notification,
            {
                "id": event_id,
                "event_id": event_id,
                "room_id": self.room,
                "type": "m.room.message",
                "sender": self.bob.user_id,
                "sender_display_name": "Bobby",
                "room_name": "Kitchen",
                "prio": "low",
                "content": {"msgtype": "m.text", "body": "hello"},
                "counts": {"unread": 1},
            },
        )

    async def test_event_id_only(self) -> None:
        """A gateway that wakes the app alone gets no content."""
        await self.set_pusher(data={"format": "event_id_only"})
        event_id = await self.bob.say(self.room, "secret")

        (notification,) = await self.pushed(1)

        device = notification.pop("devices")[0]
        self.assertEqual(device["data"], {"format": "event_id_only"})
        self.assertEqual(
            notification,
            {
                "event_id": event_id,
                "room_id": self.room,
                "prio": "low",
                "counts": {"unread": 1},
            },
        )

    async def test_pushes_come_in_order_and_counts_follow(self) -> None:
        """The newest notification has the newest count."""
        await self.set_pusher()
        for number in range(5):
            await self.bob.say(self.room, f"message {number}")

        received = await self.pushed(5)

        self.assertEqual(self.gateway.bodies(), [f"message {number}" for number in range(5)])
        self.assertEqual([each["counts"]["unread"] for each in received][-1], 5)

    async def test_own_messages_are_not_pushed(self) -> None:
        """Nobody needs to be told what they said."""
        await self.set_pusher()
        await self.alice.say(self.room, "mine")
        await self.bob.say(self.room, "hello")

        await self.pushed(1)

        self.assertEqual(self.gateway.bodies(), ["hello"])

    async def test_reading_elsewhere_takes_the_badge_back(self) -> None:
        """The phone shows how much is unread, not how much it was sent."""
        await self.set_pusher()
        event_id = await self.bob.say(self.room, "hello")
        await self.pushed(1)

        await self.alice.read(self.room, event_id)
        received = await self.pushed(2)

        self.assertEqual(received[1]["counts"], {"unread": 0})
        self.assertNotIn("event_id", received[1])
        await self.alice.read(self.room, event_id)
        await self.assert_no_more(2)

    async def test_a_rejected_pushkey_is_deleted(self) -> None:
        """A phone that is gone costs nothing more."""
        await self.set_pusher("gone")
        await self.set_pusher("other")
        self.gateway.answer = lambda request, notification: {"rejected": ["gone", "unrelated"]}
        await self.bob.say(self.room, "hello")
        await self.pushed(2)

        async def pushkeys() -> list[str]:
            pushers = (await self.alice.get("/pushers"))["pushers"]
            return [each["pushkey"] for each in pushers]

        while len(await pushkeys()) > 1:
            await pause(0.02)
        self.assertEqual(await pushkeys(), ["other"])

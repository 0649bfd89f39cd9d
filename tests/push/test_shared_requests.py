"""Gateways that notify several devices get those of a user in one request."""

from typing import Any

from tests.push.push_case import PushTestCase
from tests.push.push_gateway import PushGateway, pusher
from tests.support.reactor import until

PHONES = ["one", "two", "three"]


class SharedRequestTests(PushTestCase):
    async def setUp(self) -> None:
        gateway = PushGateway()
        origin = gateway.url.removesuffix("/_matrix/push/v1/notify")
        await gateway.stop()
        self.settings = {**PushTestCase.settings, "push": {"several_devices": [origin]}}  # type: ignore[misc]
        await super().setUp()
        await self.gateway.stop()
        self.gateway = gateway
        self.gateway.start()
        self.addCleanup(self.gateway.stop)
        for pushkey in PHONES:
            await self.set_pusher(pushkey)

    def requests(self) -> list[list[str]]:
        """The pushkeys of each request that the gateway has seen."""
        return [[device["pushkey"] for device in each["devices"]] for each in self.gateway.seen]

    async def warm(self) -> None:
        """What a first push loads may come at different times for each device."""
        await self.bob.say(self.room, "first")
        await until(lambda: sum(map(len, self.requests())) == len(PHONES))
        self.gateway.seen.clear()
        self.gateway.received.clear()

    async def test_all_devices_of_a_user_are_in_one_request(self) -> None:
        """A gateway gets a message once, with its tweaks for each device."""
        await self.warm()
        content = {
            "msgtype": "m.text",
            "body": "Alice: hello",
            "m.mentions": {"user_ids": [self.alice.user_id]},
        }
        await self.bob.send(self.room, "m.room.message", content)

        (notification,) = await self.pushed(1)

        self.assertEqual(self.requests(), [PHONES])
        for device in notification["devices"]:
            self.assertTrue(device["tweaks"]["highlight"])
        self.assertEqual(notification["counts"], {"unread": 2})

    async def test_another_user_has_a_request_of_their_own(self) -> None:
        """Users have nothing in common for a gateway."""
        await self.carol.post("/pushers/set", pusher(self.gateway, "carol's"))
        await self.bob.say(self.room, "first")
        await until(lambda: sum(map(len, self.requests())) == len(PHONES) + 1)
        self.gateway.seen.clear()
        await self.bob.say(self.room, "second")
        await until(lambda: len(self.gateway.seen) == 2)

        self.assertEqual(sorted(self.requests()), sorted([PHONES, ["carol's"]]))

    async def test_another_format_is_another_request(self) -> None:
        """A device that asked for ids only gets no content of the others."""
        await self.set_pusher("three", data={"format": "event_id_only"})
        await self.warm()
        await self.bob.say(self.room, "hello")
        received = await self.pushed(2)

        self.assertEqual(sorted(self.requests()), sorted([PHONES[:2], PHONES[2:]]))
        (ids,) = (each for each in received if len(each["devices"]) == 1)
        self.assertNotIn("content", ids)

    async def test_only_the_rejected_device_is_deleted(self) -> None:
        """The others go on."""
        await self.warm()
        self.gateway.answer = lambda request, notification: {"rejected": ["two"]}
        await self.bob.say(self.room, "hello")
        await self.pushed(1)
        await until(lambda: len(self.gateway.received) == 1)
        self.gateway.answer = lambda request, notification: {"rejected": []}
        await self.bob.say(self.room, "again")
        await self.pushed(2)

        self.assertEqual(self.requests(), [PHONES, ["one", "three"]])
        self.assertEqual(sorted(await self.pushkeys()), ["one", "three"])

    async def test_each_device_gets_what_failed_for_all(self) -> None:
        """Nothing is lost with a shared request."""
        await self.warm()

        def refuse(request: Any, _: Any) -> dict[str, Any]:
            request.setResponseCode(500)
            return {}

        self.gateway.answer = refuse
        await self.bob.say(self.room, "hello")
        await until(lambda: len(self.gateway.seen) >= 1)
        self.gateway.answer = lambda request, notification: {"rejected": []}
        await until(lambda: len(self.delivered()) == len(PHONES), timeout=10)

        self.assertEqual(sorted(self.delivered()), sorted(PHONES))

    def delivered(self) -> list[str]:
        """The devices that were notified of an event, one by one."""
        return [
            device["pushkey"]
            for each in self.gateway.received
            if "event_id" in each
            for device in each["devices"]
        ]

    async def test_what_is_read_elsewhere_is_one_request(self) -> None:
        """All phones take their badges back together."""
        await self.warm()
        event_id = await self.bob.say(self.room, "hello")
        await self.pushed(1)
        await self.alice.post(f"/rooms/{self.room}/receipt/m.read/{event_id}", {})
        await until(lambda: self.gateway.counts() == [0])

        self.assertEqual(self.requests(), [PHONES, PHONES])

"""Gateways that fail: nothing is lost, nothing comes twice, and nobody else waits."""

import time
from typing import Any

from twisted.web.server import NOT_DONE_YET, Request

from homeserver.protocol.retention.message_expiry import SELF_DESTRUCT_AFTER
from homeserver.push.pushers import missed_pushes
from homeserver.push.pushers.pusher_queue import MAX_WAITING
from tests.push.push_case import PushTestCase
from tests.push.push_gateway import PATH, PushGateway, pusher
from tests.support.reactor import until

GARBAGE = (
    b"",
    b"[]",
    b"\xff\xfe",
    b'{"rejected": "phone"}',
    b'{"rejected": [7]}',
    b"[" * 10_000,
    b'{"rejected": []' + b" " * 100_000 + b"}",
)


class GatewayFailureTests(PushTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.good = PushGateway()
        self.addCleanup(self.good.stop)

    async def test_what_a_dead_gateway_missed_is_pushed_when_it_is_back(self) -> None:
        """In order, once each, without what was read meanwhile."""
        await self.set_pusher()
        await self.bob.say(self.room, "before")
        await self.pushed(1)
        await self.gateway.stop()
        read = await self.bob.say(self.room, "read meanwhile")
        await until(self.is_behind)
        await self.alice.read(self.room, read)
        for number in range(3):
            await self.bob.say(self.room, f"missed {number}")
        gone = await self.bob.say(self.room, "taken back")
        await self.bob.redact(self.room, gone)

        self.gateway.start()
        await until(lambda: len(self.gateway.bodies()) >= 4)

        await self.bob.say(self.room, "after")
        await until(lambda: len(self.gateway.bodies()) >= 5)
        self.assertEqual(
            self.gateway.bodies(), ["before", "missed 0", "missed 1", "missed 2", "after"]
        )

    async def test_a_message_destroys_itself_while_the_gateway_is_dead(self) -> None:
        """A phone that had no network does not show what its sender wanted to be gone by then."""
        await self.set_pusher()
        await self.gateway.stop()
        due = int((time.time() + 1.0) * 1000)
        content = {"msgtype": "m.text", "body": "secret", SELF_DESTRUCT_AFTER: due}
        event_id = await self.bob.send(self.room, "m.room.message", content)
        await until(self.is_behind)
        while (await self.bob.event(self.room, event_id))["content"] != {}:
            pass

        self.gateway.start()
        await self.bob.say(self.room, "after")

        def texts() -> list[str | None]:
            return [each["content"].get("body") for each in self.gateway.received]

        await until(lambda: "after" in texts())
        self.assertNotIn("secret", texts())

    async def test_what_a_dead_gateway_missed_survives_a_restart(self) -> None:
        """The server needs no memory for it."""
        await self.set_pusher()
        await self.gateway.stop()
        await self.bob.say(self.room, "missed")
        invited = await self.bob.create_room(invite=[self.alice], name="Invited")
        await until(self.is_behind)

        await self.restart_server(self.alice, self.bob)
        self.assertTrue(self.is_behind())
        self.gateway.start()
        # A client that sets its pusher again does not have to wait for the pause to end.
        await self.set_pusher(lang="de")

        received = await self.pushed(2)
        self.assertEqual(received[0]["content"]["body"], "missed")
        self.assertEqual(received[1]["room_id"], invited)

    async def test_a_slow_gateway_delays_nobody_else(self) -> None:
        """Each pusher has a queue of its own."""
        self.gateway.answer = lambda request, notification: NOT_DONE_YET
        await self.set_pusher()
        await self.carol.post("/pushers/set", pusher(self.good, "carol"))
        for number in range(3):
            await self.bob.say(self.room, f"message {number}")

        await until(lambda: len(self.good.bodies()) >= 3)

        self.assertEqual(len(self.gateway.seen), 1)

    async def test_garbage_is_a_failure(self) -> None:
        """Whatever a gateway responds, the push is tried again, and the pusher stays."""
        for garbage in GARBAGE:
            await self._fails_with(lambda request, body, garbage=garbage: garbage)

    async def test_errors_and_redirects_are_failures(self) -> None:
        """A redirect would take messages to a server that nobody has named."""

        def respond(status: int) -> Any:
            def answer(request: Request, notification: Any) -> bytes:
                request.setResponseCode(status)
                request.setHeader("Location", f"http://127.0.0.1:{self.good.port}{PATH}")
                return b'{"rejected": ["phone"]}'

            return answer

        for status in (301, 307, 400, 404, 429, 500, 502):
            await self._fails_with(respond(status))
        self.assertEqual(self.good.seen, [])

    async def _fails_with(self, answer: Any) -> None:
        number = len(self.gateway.received)
        self.gateway.answer = answer
        await self.set_pusher(lang=f"lang{number}")
        seen = len(self.gateway.seen)
        text = f"message {number}"
        await self.bob.say(self.room, text)
        await until(lambda: len(self.gateway.seen) > seen)
        self.gateway.answer = lambda request, notification: {"rejected": []}

        await until(lambda: len(self.gateway.bodies()) > number)

        self.assertEqual(self.gateway.bodies()[-1], text)
        self.assertEqual(await self.pushkeys(), ["phone"])

    async def test_a_push_that_a_gateway_never_accepts_is_skipped(self) -> None:
        """One message that a gateway cannot handle does not silence a phone for a day."""

        def answer(request: Request, notification: Any) -> Any:
            if notification["content"]["body"] == "poison":
                request.setResponseCode(500)
            return {}

        self.gateway.answer = answer
        await self.set_pusher()
        await self.bob.say(self.room, "poison")
        await self.bob.say(self.room, "hello")
        for number in range(5):
            await until(lambda number=number: len(self.gateway.seen) > number)
            await self.set_pusher(lang=f"lang{number}")  # which ends the pause

        await until(lambda: self.gateway.bodies() == ["hello"])

    async def test_what_is_too_old_is_not_pushed(self) -> None:
        """A phone is not flooded with the messages of a week."""
        await self.set_pusher()
        await self.gateway.stop()
        await self.bob.say(self.room, "old")
        await until(self.is_behind)
        self.patch(missed_pushes, "MAX_AGE_SECONDS", 0.0)

        self.gateway.start()
        await self.set_pusher(lang="de")
        await until(lambda: not self.is_behind())
        await self.bob.say(self.room, "new")

        await self.pushed(1)
        self.assertEqual(self.gateway.bodies(), ["new"])
        self.assertEqual(self.gateway.received[0]["counts"], {"unread": 2})

    async def test_gateway_that_is_back_is_tried_for_all_at_once(self) -> None:
        """Nobody waits an hour for a gateway that serves others already."""
        await self.set_pusher("one")
        await self.gateway.stop()
        await self.bob.say(self.room, "missed")
        await until(self.is_behind)
        self.gateway.start()

        await self.carol.post("/pushers/set", pusher(self.gateway, "carol"))
        await self.bob.say(self.room, "hello")

        await until(lambda: len(self.gateway.bodies("one")) >= 2)
        self.assertEqual(self.gateway.bodies("one"), ["missed", "hello"])


class PrivateGatewayTests(PushTestCase):
    settings = {}  # noqa: RUF012

    async def test_private_addresses_are_refused(self) -> None:
        """A user cannot have the server send requests to its own network."""
        await self.set_pusher()
        await self.bob.say(self.room, "hello")

        await until(self.is_behind)

        self.assertEqual(self.gateway.seen, [])


class BacklogTests(PushTestCase):
    async def test_a_backlog_beyond_what_memory_holds_is_pushed_whole(self) -> None:
        """The pushes come from the database then, in order, and once each."""
        waiting: list[Request] = []

        def wait(request: Request, notification: Any) -> Any:
            waiting.append(request)
            return NOT_DONE_YET

        self.gateway.answer = wait
        await self.set_pusher()
        texts = [f"message {number}" for number in range(MAX_WAITING + 30)]
        for text in texts:
            await self.bob.say(self.room, text)
        await until(lambda: len(waiting) == 1)
        self.gateway.answer = lambda request, notification: {}
        waiting[0].write(b"{}")
        waiting[0].finish()

        await until(lambda: len(self.gateway.bodies()) >= len(texts) - 1)

        self.assertEqual(self.gateway.bodies(), texts[1:])
        await self.assert_no_more(len(self.gateway.received))

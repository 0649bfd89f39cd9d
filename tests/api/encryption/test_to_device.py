"""Messages to devices over the API."""

import contextlib
from typing import Any

from twisted.internet.defer import Deferred

from homeserver.encryption import to_device
from tests.support.actors import Actor
from tests.support.server import ServerTestCase

TYPE = "m.room_key_request"


def messages(answer: Any) -> list[Any]:
    """The messages in an answer of `/sync`."""
    events: list[Any] = answer.get("to_device", {}).get("events", [])
    return events


class ToDeviceTests(ServerTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.alice = await self.register("alice")
        self.bob = await self.register("bob")
        self.tablet = await self.log_in(self.bob)
        self.sent = 0

    async def send(
        self,
        *devices: Actor,
        txn_id: str | None = None,
        to_all: Actor | None = None,
        **content: Any,
    ) -> None:
        """Send a message from Alice."""
        self.sent += 1
        body: dict[str, dict[str, Any]] = {}
        for device in devices:
            body.setdefault(device.user_id, {})[device.device_id] = content
        if to_all is not None:
            body.setdefault(to_all.user_id, {})["*"] = content
        txn_id = txn_id or f"t{self.sent}"
        await self.alice.put(f"/sendToDevice/{TYPE}/{txn_id}", {"messages": body})

    async def test_a_message_reaches_its_device_until_a_later_token_proves_it(self) -> None:
        """A client that lost a response asks with the old token, and gets the message again."""
        first = await self.bob.sync()
        await self.send(self.bob, number=1)

        second = await self.bob.sync(first["next_batch"])
        again = await self.bob.sync(first["next_batch"])
        third = await self.bob.sync(second["next_batch"])
        late = await self.bob.sync(first["next_batch"])

        expected = [{"type": TYPE, "sender": self.alice.user_id, "content": {"number": 1}}]
        self.assertEqual(messages(second), expected)
        self.assertEqual(messages(again), expected)
        self.assertEqual(messages(third), [])
        self.assertEqual(messages(late), [])
        self.assertEqual(messages(await self.tablet.sync()), [])

    async def test_waiting_messages_survive_a_restart(self) -> None:
        """They come with the first sync, in the order in which they were sent."""
        since = (await self.bob.sync())["next_batch"]
        for number in range(3):
            await self.send(self.bob, number=number)
        await self.restart_server(self.alice, self.bob, self.tablet)

        for answer in (await self.bob.sync(), await self.bob.sync(since)):
            self.assertEqual([each["content"]["number"] for each in messages(answer)], [0, 1, 2])

    async def test_a_repeated_request_sends_nothing_again(self) -> None:
        """Even after a restart; another type with the same id is another request."""
        await self.send(self.bob, txn_id="same", number=1)
        await self.send(self.bob, txn_id="same", number=2)
        await self.restart_server(self.alice, self.bob, self.tablet)
        await self.send(self.bob, txn_id="same", number=3)

        self.assertEqual(
            [each["content"]["number"] for each in messages(await self.bob.sync())], [1]
        )

    async def test_all_devices_of_a_user(self) -> None:
        """`*` reaches each of them once, and a message of its own has precedence."""
        await self.send(to_all=self.bob, number=1)
        body = {self.bob.user_id: {"*": {"number": 2}, self.bob.device_id: {"number": 3}}}
        await self.alice.put(f"/sendToDevice/{TYPE}/own", {"messages": body})

        for device, numbers in ((self.bob, [1, 3]), (self.tablet, [1, 2])):
            answer = await device.sync()
            self.assertEqual([each["content"]["number"] for each in messages(answer)], numbers)

    async def test_a_hundred_at_a_time(self) -> None:
        """The rest follows at once with the next requests: none is left out, none comes twice."""
        since = (await self.bob.sync())["next_batch"]
        for number in range(250):
            await self.send(self.bob, number=number)
        answers = []
        for _ in range(4):
            answers.append(
                await self.bob.sync(since, timeout_ms=0 if len(answers) == 3 else 30_000)
            )
            since = answers[-1]["next_batch"]

        numbers = [[each["content"]["number"] for each in messages(each)] for each in answers]
        self.assertEqual([len(each) for each in numbers], [100, 100, 50, 0])
        self.assertEqual([one for each in numbers for one in each], list(range(250)))

    async def test_a_waiting_client_is_woken(self) -> None:
        """Keys for a message arrive with the message."""
        since = (await self.bob.sync())["next_batch"]
        waiting = Deferred.fromCoroutine(self.bob.sync(since, timeout_ms=30_000))
        await self.send(self.bob, number=1)

        self.assertEqual(len(messages(await waiting)), 1)

    async def test_unknown_devices_and_removed_ones_get_nothing(self) -> None:
        """A later device of the same name begins empty."""
        await self.send(self.tablet, number=1)
        body = {self.bob.user_id: {"NEVER": {"number": 1}}, "@no:body": {}}
        await self.alice.put(f"/sendToDevice/{TYPE}/none", {"messages": body})
        await self.tablet.post("/logout")
        login = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": self.bob.user_id},
            "password": "the password of bob",
        }
        for device_id in ("NEVER", self.tablet.device_id):
            answer = await self.anybody.post("/login", {**login, "device_id": device_id})
            self.assertEqual(messages(await self._actor(answer).sync()), [])

    async def test_malformed_requests(self) -> None:
        """A client learns at once that its message reaches nobody."""
        for body, errcode in (
            ({}, "M_BAD_JSON"),
            ({"messages": {self.bob.user_id: {"*": 1}}}, "M_BAD_JSON"),
            ({"messages": {self.bob.user_id: {"*": {"a": "x" * 65_536}}}}, "M_TOO_LARGE"),
            ({"messages": {"@carol:other.example": {"*": {"a": 0.5}}}}, "M_BAD_JSON"),
        ):
            attempt = self.alice.put(f"/sendToDevice/{TYPE}/x", body)
            with self.subTest(body=str(body)[:80]):
                await self.assert_refused(errcode, attempt)

    async def test_json_that_nobody_can_read_is_refused(self) -> None:
        """A lone surrogate, or lists without end, cost the server no error of its own."""
        for content in (b'{"a":"\\ud800"}', b'{"a":%s1%s}' % (b"[" * 3_000, b"]" * 3_000)):
            body = b'{"messages":{"%s":{"*":%s}}}' % (self.bob.user_id.encode(), content)
            for errcode in ("M_BAD_JSON", "M_NOT_JSON"):
                attempt = self.alice.put(f"/sendToDevice/{TYPE}/bad", body)
                with contextlib.suppress(AssertionError):
                    await self.assert_refused(errcode, attempt, 400)
                    break
            else:
                self.fail(f"{content[:20]!r} was not refused")
        self.assertEqual(messages(await self.bob.sync()), [])

    async def test_a_request_does_not_multiply_without_end(self) -> None:
        """`*` is one message for each device; a type is a short name."""
        self.patch(to_device, "MAX_DELIVERED", 1)
        await self.assert_refused("M_TOO_LARGE", self.send(to_all=self.bob, number=1), 413)
        await self.send(self.bob, number=2)
        path = f"/sendToDevice/{'x' * 256}/t"
        await self.assert_refused("M_INVALID_PARAM", self.alice.put(path, {"messages": {}}), 400)

        self.assertEqual(len(messages(await self.bob.sync())), 1)

    async def test_a_token_from_the_future_deletes_nothing_that_is_to_come(self) -> None:
        """A client with a token that this server never gave out still gets later messages."""
        await self.bob.sync("s4000000000000000000")
        await self.send(self.bob, number=1)
        await self.restart_server(self.alice, self.bob, self.tablet)  # deletes what was received

        self.assertEqual(len(messages(await self.bob.sync())), 1)

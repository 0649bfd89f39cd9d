"""Messages to devices from other servers: each is delivered once, and nothing else is stored."""

from typing import Any, ClassVar

import msgspec
from twisted.internet.defer import Deferred, gatherResults

from homeserver.protocol.errors import Unavailable
from homeserver.storage.encryption.to_device import delete_old_received
from homeserver.streams.positions import MAX_POSITION
from tests.federation.encryption.peers import TYPE, PeersTestCase


class ToDeviceInTests(PeersTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.since = (await self.alice.sync())["next_batch"]

    def edu(self, message_id: Any, content: Any = None, **members: Any) -> dict[str, Any]:
        """A message from Bob to Alice."""
        content = {"id": message_id} if content is None else content
        messages = {self.alice.user_id: {self.alice.device_id: content}}
        body = {"sender": self.bob, "type": TYPE, "message_id": message_id, "messages": messages}
        return {"edu_type": "m.direct_to_device", "content": {**body, **members}}

    async def received(self) -> list[Any]:
        """The contents of the messages that wait for Alice."""
        answer = await self.alice.sync(self.since, timeout_ms=0)
        return [each["content"] for each in answer.get("to_device", {}).get("events", [])]

    async def test_messages_arrive_in_order(self) -> None:
        """All messages of a transaction, with their sender and type."""
        edus = [self.edu(str(number)) for number in range(100)]
        status, _ = await self.there.send(self.here.name, edus=edus)

        self.assertEqual(status, 200)
        answer = await self.alice.sync(self.since, timeout_ms=0)
        events = answer["to_device"]["events"]
        self.assertEqual([each["content"]["id"] for each in events], [str(n) for n in range(100)])
        self.assertEqual(events[0], {"type": TYPE, "sender": self.bob, "content": {"id": "0"}})

    async def test_a_message_is_delivered_once(self) -> None:
        """In the same transaction, in another, in two at the same time, and after a restart."""
        edu = self.edu("same")
        await self.there.send(self.here.name, edus=[edu, edu], txn_id="first")
        await self.there.send(self.here.name, edus=[edu], txn_id="first")
        both = [self.edu("both")]
        sending = [
            Deferred.fromCoroutine(self.there.send(self.here.name, edus=both)) for _ in range(4)
        ]
        await gatherResults(sending)
        await self.restart()
        await self.there.send(self.here.name, edus=[edu, self.edu("both"), self.edu("new")])

        self.assertEqual(await self.received(), [{"id": "same"}, {"id": "both"}, {"id": "new"}])

    async def test_two_servers_may_use_the_same_id(self) -> None:
        """A server cannot keep a message of another one from its receiver."""
        other = await self.fake()
        await self.there.send(self.here.name, edus=[self.edu("1")])
        await other.send(self.here.name, edus=[self.edu("1", {"other": 1}, sender=other.user("x"))])

        self.assertEqual(await self.received(), [{"id": "1"}, {"other": 1}])

    async def test_only_existing_devices_of_local_users_get_messages(self) -> None:
        """`*` is all devices of a user; what reaches nobody leaves no trace."""
        carol = await self.here.register("carol")
        await self.there.send(
            self.here.name,
            edus=[
                self.edu("1", messages={carol.user_id: {"*": {"all": 1}, "NONE": {}}}),
                self.edu("2", messages={f"@nobody:{self.here.name}": {"*": {}}}),
                self.edu("3", messages={"@dave:other.example": {"*": {}}, self.bob: {"*": {}}}),
            ],
        )

        answer = await carol.sync()
        self.assertEqual([each["content"] for each in answer["to_device"]["events"]], [{"all": 1}])
        self.assertEqual(await self.received(), [])
        self.assertEqual(await self.waiting("to_device_messages"), 1)
        self.assertEqual(await self.waiting("to_device_received"), 1)

    async def test_malformed_messages_do_not_affect_others(self) -> None:
        """Whatever a server sends, its other messages arrive, and the response is 200."""
        user = self.alice.user_id
        device = self.alice.device_id
        bad: list[Any] = [
            self.edu("a", sender="@mallory:other.example"),
            self.edu("b", sender=self.alice.user_id),
            self.edu("c", sender=1),
            self.edu("d", type=None),
            self.edu("d", type="x" * 256),
            self.edu("e" * 33),
            self.edu("\0"),
            self.edu(7),
            self.edu("g", messages=[]),
            self.edu("h", messages={user: []}),
            self.edu("i", messages={user: {device: "text"}}),
            self.edu("j", messages={user: {device: {"text": "x" * 65_536}}}),
            self.edu("k", messages={f"@a\0:{self.here.name}": {"*": {}}, "": {"*": {}}}),
            self.edu("l", messages={user: {"\0": {}}}),
            {"edu_type": "m.direct_to_device", "content": []},
            {"edu_type": "m.direct_to_device"},
            msgspec.Raw(b'{"edu_type":"m.direct_to_device","content":{"sender":"\\ud800"}}'),
        ]
        status, _ = await self.there.send(self.here.name, edus=[*bad, self.edu("good")])

        self.assertEqual(status, 200)
        self.assertEqual(await self.received(), [{"id": "good"}])
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_unusual_contents_arrive(self) -> None:
        """The server does not read what users send each other: floats, NUL and large numbers."""
        content = {"nul": "a\0b", "float": 0.5, "big": 2**60, "deep": [[[[]]]], "": None}
        await self.there.send(self.here.name, edus=[self.edu("1", content)])

        self.assertEqual(await self.received(), [content])

    async def test_messages_that_cannot_be_stored_are_refused(self) -> None:
        """Their server sends them again: the response must not say that they arrived."""
        log = self.here.server.parts.encryption.to_device._log

        def check_open() -> None:
            raise Unavailable("no database")

        patch = self.patch(log, "check_open", check_open)
        edus = [self.edu("1")]
        refused, _ = await self.there.send(self.here.name, edus=edus, txn_id="t")
        patch.restore()
        accepted, _ = await self.there.send(self.here.name, edus=edus, txn_id="t")

        self.assertEqual((refused, accepted), (503, 200))
        self.assertEqual(await self.received(), [{"id": "1"}])

    async def test_old_ids_are_forgotten(self) -> None:
        """The ids of all messages of all servers do not fill the disk."""
        await self.there.send(self.here.name, edus=[self.edu("1")])
        db = self.here.server.parts.db
        await db.run(delete_old_received, 0)
        self.assertEqual(await self.waiting("to_device_received"), 1)
        await db.run(delete_old_received, MAX_POSITION)
        self.assertEqual(await self.waiting("to_device_received"), 0)


class FloodTests(PeersTestCase):
    settings: ClassVar[dict[str, Any]] = {
        "rate_limits": {"remote_to_device": {"per_second": 4.0, "burst": 5}}
    }

    async def test_a_server_that_sends_too_much_must_wait(self) -> None:
        """It loses nothing if it obeys: what was stored is not delivered again."""
        since = (await self.alice.sync())["next_batch"]
        target = {self.alice.user_id: {self.alice.device_id: {}}}
        edus = [
            {
                "edu_type": "m.direct_to_device",
                "content": {
                    "sender": self.bob,
                    "type": TYPE,
                    "message_id": str(number),
                    "messages": target,
                },
            }
            for number in range(8)
        ]
        statuses = []
        while 200 not in statuses:
            status, _ = await self.there.send(self.here.name, edus=edus, txn_id="t")
            statuses.append(status)

        self.assertEqual(statuses[0], 429)
        answer = await self.alice.sync(since, timeout_ms=0)
        self.assertEqual(len(answer["to_device"]["events"]), 8)

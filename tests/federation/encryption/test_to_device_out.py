"""Messages to devices of users of other servers: they arrive once, in order, whatever fails."""

import time
from typing import Any

import msgspec

from homeserver.encryption.message_retention import OUTGOING_SECONDS, MessageRetention
from homeserver.storage.encryption.outgoing_to_device import delete_outgoing
from tests.federation.encryption.peers import TYPE, PeersTestCase
from tests.support.fake_server.fake_http import FAILURE, Answer, Break, Received, always
from tests.support.reactor import until

TOO_LARGE = Answer(413, b"<html>Request Entity Too Large</html>")
REFUSED = Answer(400, {"errcode": "M_BAD_JSON", "error": "no"})


class ToDeviceOutTests(PeersTestCase):
    async def test_a_message_arrives_as_it_was_sent(self) -> None:
        """Bob's server gets an EDU whose signature holds, although the client's JSON has spaces."""
        body = b'{"messages": {"%s": {"PHONE": {"z" : "\\u00e9", "a": [1, {}]}}}}'
        await self.alice.put(f"/sendToDevice/{TYPE}/t", body % self.bob.encode())

        (content,) = await self.arrive(1, "m.direct_to_device")
        message_id = content.pop("message_id")
        self.assertEqual(
            content,
            {
                "sender": self.alice.user_id,
                "type": TYPE,
                "messages": {self.bob: {"PHONE": {"a": [1, {}], "z": "é"}}},
            },
        )
        self.assertLessEqual(len(message_id), 32)
        await until(lambda: not self.here.server.parts.federated_rooms.destinations_with_edus)
        self.assertEqual(await self.waiting("outgoing_to_device"), 0)

    async def test_messages_survive_an_outage_and_a_restart(self) -> None:
        """They follow in their order as soon as Bob's server is up, each once."""
        self.answer_transactions(always(FAILURE))
        for number in range(100):
            await self.send({"number": number})
        await self.restart()
        self.assertEqual(await self.waiting("outgoing_to_device"), 100)
        await self.come_back()

        await until(lambda: len(self.messages()) >= 100)
        self.assertEqual([each["number"] for each in self.messages()], list(range(100)))
        metric = self.here.server.parts.federated_rooms
        await until(lambda: not metric.destinations_with_edus)

    async def test_a_message_whose_outcome_is_unknown_keeps_its_id(self) -> None:
        """Bob's server recognises the second one."""
        arrived = self.answer_transactions(always(Break()))
        await self.send({"number": 1})
        await until(lambda: bool(arrived))
        await self.come_back()

        (content,) = await self.arrive(1, "m.direct_to_device")
        ids = {edu["content"]["message_id"] for each in arrived for edu in each.body["edus"]}
        self.assertEqual(ids, {content["message_id"]})

    async def test_a_refused_message_holds_up_no_other(self) -> None:
        """Also where a proxy refuses it, without an error code; all others keep their order."""
        self.answer_transactions(always(FAILURE))
        for number in range(30):
            await self.send({"number": number})

        def refuse(request: Received) -> Answer:
            numbers = [
                edu["content"]["messages"][self.bob]["PHONE"]["number"]
                for edu in request.body.get("edus", [])
                if edu["edu_type"] == "m.direct_to_device"
            ]
            return TOO_LARGE if {7, 20} & {*numbers} else self.accept(request)

        self.there.answers["send_transaction"] = refuse
        await self.there.send(self.here.name)
        await until(lambda: len(self.messages()) >= 28)

        numbers = [each["number"] for each in self.messages()]
        self.assertEqual(numbers, [each for each in range(30) if each not in (7, 20)])
        await until(lambda: not self.here.server.parts.federated_rooms.destinations_with_edus)
        self.assertEqual(await self.waiting("outgoing_to_device"), 0)
        self.assertEqual(len(self.flushLoggedErrors()), 0)

    async def test_a_server_that_refuses_everything_loses_nothing(self) -> None:
        """A server may be configured wrongly for a while."""
        arrived = self.answer_transactions(always(REFUSED))
        for number in range(3):
            await self.send({"number": number})
        await until(lambda: any(not each.body.get("edus") for each in arrived))
        await self.restart()
        self.there.answers.pop("send_transaction")

        await until(lambda: len(self.messages()) >= 3, timeout=30)
        self.assertEqual([each["number"] for each in self.messages()], [0, 1, 2])

    async def test_a_large_request_becomes_several_edus(self) -> None:
        """No EDU is so large that servers refuse it."""
        content = {"text": "x" * 30_000}
        body = {"messages": {self.bob: {f"D{number}": content for number in range(5)}}}
        await self.alice.put(f"/sendToDevice/{TYPE}/t", body)
        contents = await self.arrive(3, "m.direct_to_device")

        self.assertEqual([len(each["messages"][self.bob]) for each in contents], [2, 2, 1])
        self.assertEqual(len({each["message_id"] for each in contents}), 3)
        self.assertTrue(all(len(msgspec.json.encode(each)) < 66_000 for each in contents))

    async def test_messages_do_not_wait_for_ever(self) -> None:
        """A server that is gone for a month gets only what is newer, and at most so many."""
        self.answer_transactions(always(FAILURE))
        for number in range(5):
            await self.send({"number": number})
        parts = self.here.server.parts
        deleted = await parts.db.run(delete_outgoing, 0, 3)
        self.assertEqual(deleted, {self.there.name: 2})

        clock: Any = _Later(OUTGOING_SECONDS + 60)
        settings = self.here.server.settings.encryption
        await MessageRetention(parts.db, clock, settings).clean_up()
        self.assertEqual(await self.waiting("outgoing_to_device"), 0)


class _Later:
    """A clock that is ahead."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def wall_seconds(self) -> float:
        return time.time() + self._seconds

    def seconds(self) -> float:
        return self.wall_seconds()

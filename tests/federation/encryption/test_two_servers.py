"""Encrypted chat between the users of two servers: messages to devices, and changes of keys."""

from typing import Any

from tests.encryption.client_keys import DeviceKeys
from tests.support.actors import Actor
from tests.support.organisations import FederationTestCase, Organisation
from tests.support.reactor import until

TYPE = "m.room.encrypted"


class TwoServersTests(FederationTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.one = await self.organisation()
        self.two = await self.organisation()
        self.alice = await self.one.register("alice")
        self.bob = await self.two.register("bob")
        self.received: list[Any] = []
        self.since: str | None = None

    async def hear(self, number: int) -> list[Any]:
        """Sync as Bob until so many messages have arrived; gives the numbers in all of them."""
        while len(self.received) < number:
            answer = await self.bob.sync(self.since, timeout_ms=5_000)
            self.since = answer["next_batch"]
            events = answer.get("to_device", {}).get("events", [])
            self.received += [each["content"]["number"] for each in events]
        return self.received

    async def send(self, number: int) -> None:
        """Send a message from Alice to Bob's device."""
        body = {"messages": {self.bob.user_id: {self.bob.device_id: {"number": number}}}}
        await self.alice.put(f"/sendToDevice/{TYPE}/t{number}", body)

    async def test_messages_arrive_once_while_both_servers_restart(self) -> None:
        """None is lost and none comes twice, whichever server is down at the moment."""
        for number in range(5):
            await self.send(number)
        await self._restart(self.two, self.bob)
        for number in range(5, 10):
            await self.send(number)
        await self._restart(self.one, self.alice)
        for number in range(10, 15):
            await self.send(number)

        self.assertEqual(await self.hear(15), list(range(15)))
        self.assertEqual((await self.bob.sync(self.since, timeout_ms=0)).get("to_device"), None)

    async def test_a_server_that_was_down_gets_what_was_sent_meanwhile(self) -> None:
        """The messages wait at the sender's server, in order."""
        await self.send(0)
        await self.hear(1)
        await self.two.stop()
        for number in range(1, 4):
            await self.send(number)
        await self.two.start()
        self.bob.url = self.two.url
        room = await self.bob.create_room(public=True)
        await self.alice.join(room, via=[self.two.name])

        self.assertEqual(await self.hear(4), list(range(4)))

    async def test_changes_of_keys_are_sent_to_the_other_server(self) -> None:
        """Its outbox is empty in the end: the other server has accepted them."""
        room = await self.alice.create_room(public=True)
        await self.bob.join(room, via=[self.one.name])
        keys = DeviceKeys(self.alice).identity
        await self.alice.post("/keys/upload", {"device_keys": keys})
        parts = self.one.server.parts

        async def outbox() -> int:
            async with parts.db.connection() as connection:
                cursor = await connection.execute("SELECT count(*) FROM device_list_outbox")
                row = await cursor.fetchone()
            assert row is not None
            return int(row[0])

        await until(lambda: all(reader.is_idle for reader in parts.readers))
        await until(lambda: not parts.federated_rooms.destinations_with_edus)
        await parts.encryption.to_device._log.flush()
        self.assertEqual(await outbox(), 0)

    async def _restart(self, organisation: Organisation, actor: Actor) -> None:
        await organisation.stop()
        await organisation.start()
        actor.url = organisation.url


class DecodedEntriesTests(TwoServersTests):
    """The same where subscribers of the logs see decoded entries."""

    transcodes = True

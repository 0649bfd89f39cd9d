"""A server with users, and a scripted one whose users share a room with them."""

from collections.abc import Mapping
from typing import Any, ClassVar

from tests.encryption.client_keys import DeviceKeys
from tests.support.actors import Actor
from tests.support.fake_server.fake_http import Answer, Handler, Received
from tests.support.fake_server.server import FakeServer
from tests.support.organisations import FederationTestCase, Organisation
from tests.support.reactor import until

TYPE = "m.room.encrypted"


class PeersTestCase(FederationTestCase):
    """Alice's server `here`, and the scripted server `there`."""

    settings: ClassVar[Mapping[str, Any]] = {}
    here: Organisation
    there: FakeServer

    async def setUp(self) -> None:
        await super().setUp()
        self.there = await self.fake()
        self.here = await self.organisation(**self.settings)
        self.alice = await self.here.register("alice")
        self.bob = self.there.user("bob")
        self._sent = 0

    async def upload(self, actor: Actor, seed: str = "") -> dict[str, Any]:
        """Upload identity keys of a device, and return them."""
        keys = DeviceKeys(actor, seed).identity
        await actor.post("/keys/upload", {"device_keys": keys})
        return keys

    async def send(self, content: Any, *, to: str | None = None, device: str = "PHONE") -> None:
        """Send a message from Alice to a device."""
        self._sent += 1
        body = {"messages": {to or self.bob: {device: content}}}
        await self.alice.put(f"/sendToDevice/{TYPE}/t{self._sent}", body)

    def contents(self, *edu_types: str) -> list[Any]:
        """The contents of the EDUs of some types that `there` has accepted, in their order."""
        return [edu["content"] for edu in self.there.edus if edu["edu_type"] in edu_types]

    def messages(self) -> list[Any]:
        """The contents of the messages for Bob's phone that `there` has accepted."""
        found = self.contents("m.direct_to_device")
        return [each["messages"][self.bob]["PHONE"] for each in found]

    async def arrive(self, number: int, *edu_types: str) -> list[Any]:
        """Wait until `there` has accepted so many EDUs; gives their contents."""
        await until(lambda: len(self.contents(*edu_types)) >= number)
        return self.contents(*edu_types)

    def answer_transactions(self, handler: Handler) -> list[Received]:
        """Have `there` answer transactions by a handler; gives all that arrive from now on."""
        arrived: list[Received] = []

        def record(request: Received) -> Answer:
            arrived.append(request)
            return handler(request)

        self.there.answers["send_transaction"] = record
        return arrived

    def accept(self, request: Received) -> Answer:
        """Accept a transaction."""
        return self.there._good.send_transaction(request)

    async def come_back(self) -> None:
        """`there` accepts transactions again, and shows that it is up."""
        self.there.answers.pop("send_transaction", None)
        await self.there.send(self.here.name)

    async def waiting(self, table: str) -> int:
        """The number of rows in a table of `here`, once nothing waits to be written."""
        parts = self.here.server.parts
        await parts.encryption.to_device._log.flush()
        async with parts.db.connection() as connection:
            cursor = await connection.execute(f"SELECT count(*) FROM {table}")
            row = await cursor.fetchone()
        assert row is not None
        return int(row[0])

    async def restart(self) -> None:
        """Stop the server, and start it again."""
        await self.here.stop()
        await self.here.start()
        self.alice.url = self.here.url

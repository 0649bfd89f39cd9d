"""The sender after a crash: no event that other servers have to get is lost, at any moment."""

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from federation.sending.sender import OutgoingSource, Sender
from federation.sending.server_joins import ServerJoins
from federation.transport.destination_health import DestinationHealth
from federation.transport.permitted_servers import PermittedServers
from homeserver.streams.durable_readers import STORE_SECONDS
from tests.federation.sending.dying_client import DyingClient
from tests.support.postgres import DatabaseTestCase
from tests.support.reactor import until
from tests.sync.sync_server import SyncServer

OTHER = "two.example"
MESSAGES = 4


class SendingProcess:
    """A server with a sender, whose way to the other server is a `DyingClient`."""

    def __init__(self, server: SyncServer, client: DyingClient) -> None:
        self.server = server
        self.client = client
        self.clock = Clock()
        health = DestinationHealth(server.db, self.clock)
        self.sender = Sender(
            client,  # type: ignore[arg-type]
            health,
            PermittedServers(),
            server.core.registry,
            server.core.sticky_events,
            server.log,
            server.db,
            self.clock,
        )
        source = OutgoingSource(server.db, server.core.registry)
        self.reader = server.readers.add(
            "federation_sender", source, self.sender.send, self.sender.first_unsent
        )
        joins = ServerJoins(server.db, server.core.registry, server.core.sticky_events)
        self.joins = server.readers.add(
            "server_joins", joins, self.sender.send_sticky, self.sender.first_unsent
        )

    async def start(self) -> None:
        await self.reader.load()
        await self.joins.load()
        await self.sender.start()
        self.reader.start()
        self.joins.start()

    async def kill(self) -> None:
        """End, as if killed."""
        self.client.is_dead = True
        self.server.die()
        await self.sender.stop()


class SenderCrashTests(DatabaseTestCase):
    timeout = 120

    async def setUp(self) -> None:
        await super().setUp()
        self.received: list[str] = []
        server = await SyncServer.start(self.db)
        self.alice = await server.user("alice")
        self.room_id = await server.create_room(self.alice)
        await server.remote.member(self.room_id, f"@bob:{OTHER}", "join")
        self.process = SendingProcess(server, self.client(None))
        await self.process.start()

    def client(self, dies_at: int | None, *, after_receipt: bool = False) -> DyingClient:
        """The way to a server that records the bodies of events."""

        def record(transaction: dict[str, Any]) -> None:
            self.received += [pdu["content"].get("body", "") for pdu in transaction["pdus"]]

        return DyingClient(record, dies_at, after_receipt=after_receipt)

    async def clean_up(self) -> None:
        await self.process.kill()
        await super().clean_up()

    async def succeed(
        self, dies_at: int | None = None, *, dies_after_receipt: bool = False
    ) -> SendingProcess:
        """Kill the process, and start the next one; it may die at one of its transactions."""
        await self.process.kill()
        client = self.client(dies_at, after_receipt=dies_after_receipt)
        self.process = SendingProcess(await SyncServer.start(self.db), client)
        await self.process.start()
        return self.process

    async def say_all(self, label: str) -> list[str]:
        """Send messages, one after the other, until the process has died."""
        process = self.process
        said = []
        for number in range(MESSAGES):
            body = f"{label} {number}"
            content = {"msgtype": "m.text", "body": body}
            saying = Deferred.fromCoroutine(
                process.server.rooms.sending.send_message(
                    self.alice, self.room_id, "m.room.message", content, body
                )
            )
            await until(lambda: bool(saying.called or process.server.is_dead))  # noqa: B023
            if not saying.called:
                break
            said.append(body)
            process.server.readers_clock.advance(STORE_SECONDS)
            process.server.readers._store()
        return said

    async def arrive(self, said: list[str]) -> None:
        """Wait for messages at the other server."""
        await until(lambda: {*said} <= {*self.received})

    async def test_killed_at_any_transaction(self) -> None:
        """Whether the other server got the transaction or not, it gets the events."""
        for dies_after_receipt in (False, True):
            for dies_at in range(MESSAGES):
                with self.subTest(f"transaction {dies_at}, received: {dies_after_receipt}"):
                    await self.succeed(dies_at, dies_after_receipt=dies_after_receipt)
                    said = await self.say_all(f"{dies_after_receipt} {dies_at}")
                    self.assertEqual(len(said), MESSAGES)
                    await self.succeed()
                    await self.arrive(said)

    async def test_killed_at_any_commit(self) -> None:
        """What was acknowledged to the client is sent, whatever the sender has stored of it."""
        for commits in range(1, 2 * MESSAGES):
            with self.subTest(f"after commit {commits}"):
                await self.succeed()
                self.process.server.crash_after(commits)
                said = await self.say_all(f"commit {commits}")
                await self.succeed()
                await self.arrive(said)

    async def test_killed_while_the_other_server_is_gone(self) -> None:
        """Rooms are recorded for a server that does not respond; the newest event arrives."""
        for commits in range(1, 2 * MESSAGES):
            with self.subTest(f"after commit {commits}"):
                await self.succeed()
                self.process.client.is_reachable = False
                self.process.server.crash_after(commits)
                said = await self.say_all(f"gone {commits}")
                await self.succeed()
                await self.arrive(said[-1:])

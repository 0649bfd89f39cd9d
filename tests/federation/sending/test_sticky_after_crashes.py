"""Sticky events for servers that join and that were away, after the sending process was killed.

Spec: https://github.com/matrix-org/matrix-spec-proposals/pull/4354
"""

from itertools import count
from typing import Any

from twisted.internet.defer import Deferred

from homeserver.rooms.events.event_draft import Stickiness
from homeserver.streams.durable_readers import STORE_SECONDS
from tests.federation.sending.dying_client import DyingClient
from tests.federation.sending.test_sender_after_crashes import SendingProcess
from tests.support.postgres import DatabaseTestCase
from tests.support.reactor import until
from tests.sync.sync_server import SyncServer

HOUR_MS = 3_600_000
OTHER = "other.example"
NUMBER = 3


class StickyCrashTests(DatabaseTestCase):
    timeout = 120

    async def setUp(self) -> None:
        await super().setUp()
        self.received: list[int] = []
        self._numbers = count()
        server = await SyncServer.start(self.db)
        self.alice = await server.user("alice")
        self.process = SendingProcess(server, self.client(None))
        await self.process.start()

    async def clean_up(self) -> None:
        await self.process.kill()
        await super().clean_up()

    def client(self, dies_at: int | None, *, after_receipt: bool = False) -> DyingClient:
        def record(transaction: dict[str, Any]) -> None:
            self.received += [pdu["content"].get("number", -1) for pdu in transaction["pdus"]]

        return DyingClient(record, dies_at, after_receipt=after_receipt)

    async def succeed(self, client: DyingClient | None = None) -> SyncServer:
        """Kill the process, and start the next one."""
        await self.process.kill()
        server = await SyncServer.start(self.db)
        self.process = SendingProcess(server, client or self.client(None))
        await self.process.start()
        return server

    async def stick(self, server: SyncServer, room_id: str) -> list[int]:
        """Send sticky events, until the process has died; gives those that were acknowledged."""
        sent = []
        for _ in range(NUMBER):
            number = next(self._numbers)
            sending = Deferred.fromCoroutine(
                server.rooms.sending.send_message(
                    self.alice,
                    room_id,
                    "m.x",
                    {"number": number},
                    f"{number}",
                    Stickiness(HOUR_MS, "msc4354_sticky"),
                )
            )
            await until(lambda: bool(sending.called or server.is_dead))  # noqa: B023
            if sending.called:
                sent.append(number)
            if not server.is_dead:
                server.readers_clock.advance(STORE_SECONDS)
                server.readers._store()
        return sent

    async def join(self, server: SyncServer, room_id: str) -> bool:
        """Have a user of the other server join; false if the process has died before."""
        joining = Deferred.fromCoroutine(server.remote.member(room_id, f"@bob:{OTHER}", "join"))
        await until(lambda: bool(joining.called or server.is_dead))
        return joining.called

    async def arrive(self, sent: list[int]) -> None:
        await until(lambda: {*sent} <= {*self.received})

    async def test_killed_at_any_commit_around_a_join(self) -> None:
        """The server that has joined gets what sticks from this process or from the next one."""
        for commits in range(8):
            with self.subTest(f"after commit {commits}"):
                server = await self.succeed()
                room_id = await server.create_room(self.alice)
                sent = await self.stick(server, room_id)
                await server.idle()
                server.crash_after(commits)

                if not await self.join(server, room_id):
                    server = await self.succeed()
                    await self.join(server, room_id)
                else:
                    await self.succeed()

                await self.arrive(sent)

    async def test_killed_at_the_transaction(self) -> None:
        """Whether the other server got it or not."""
        for after_receipt in (False, True):
            with self.subTest(f"received: {after_receipt}"):
                server = await self.succeed(self.client(0, after_receipt=after_receipt))
                room_id = await server.create_room(self.alice)
                sent = await self.stick(server, room_id)
                await self.join(server, room_id)
                await until(lambda: self.process.client.is_dead)
                await self.succeed()
                await self.arrive(sent)

    async def test_killed_while_the_other_server_is_away(self) -> None:
        """All that stick arrive when it is back, not only the newest event."""
        for commits in range(2 * NUMBER + 2):
            with self.subTest(f"after commit {commits}"):
                client = self.client(None)
                client.is_reachable = False
                server = await self.succeed(client)
                room_id = await server.create_room(self.alice)
                await self.join(server, room_id)
                await server.idle()
                server.crash_after(commits)

                sent = await self.stick(server, room_id)
                await self.succeed()

                await self.arrive(sent)

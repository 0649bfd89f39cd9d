"""Outboxes after a crash: no message and no change of a device list is lost, at any moment."""

from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from federation.sending.device_list_items import DeviceListItems
from federation.sending.device_list_outbox import DeviceListOutbox
from federation.sending.device_list_recipients import DeviceListRecipients
from federation.sending.room_servers import RoomServers
from federation.sending.sender import Sender
from federation.sending.to_device_outbox import ToDeviceOutbox
from federation.transport.destination_health import DestinationHealth
from federation.transport.permitted_servers import PermittedServers
from homeserver.accounts.sessions.requester import Requester
from tests.encryption.client_keys import DeviceKeys
from tests.federation.sending.dying_client import DyingClient
from tests.support.actors import Actor
from tests.support.postgres import DatabaseTestCase
from tests.support.reactor import until
from tests.sync.sync_server import SyncServer

OTHER = "two.example"
BOB = f"@bob:{OTHER}"
MESSAGES = 3


class OtherServer:
    """The other server's side, which survives all crashes: what it has accepted."""

    def __init__(self) -> None:
        self.edus: list[dict[str, Any]] = []

    def receive(self, transaction: dict[str, Any]) -> None:
        self.edus += transaction.get("edus", [])

    def of_type(self, edu_type: str) -> list[dict[str, Any]]:
        return [edu["content"] for edu in self.edus if edu["edu_type"] == edu_type]

    @property
    def messages(self) -> dict[str, str]:
        """The bodies of the messages, by id: a repeated one counts once."""
        found = self.of_type("m.direct_to_device")
        return {each["message_id"]: each["messages"][BOB]["PHONE"]["body"] for each in found}


class Process:
    """A server with a sender and outboxes."""

    def __init__(self, server: SyncServer, client: DyingClient) -> None:
        self.server = server
        self.client = client
        core, db, log = server.core, server.db, server.log
        clock = Clock()
        self.sender = Sender(
            client,  # type: ignore[arg-type]
            DestinationHealth(db, clock),
            PermittedServers(),
            core.registry,
            core.sticky_events,
            log,
            db,
            clock,
            [ToDeviceOutbox(db, log), DeviceListOutbox(db, log, server.encryption.directory)],
        )
        servers = RoomServers(core.registry, db)
        recipients = DeviceListRecipients(
            db, log, core.registry, core.user_rooms, servers, self.sender
        )
        items = DeviceListItems(db, core.registry)
        self.reader = server.readers.add("device_lists", items, recipients.handle)
        for reader in (servers, self.sender):
            log.subscribe(reader.apply)

    async def start(self) -> None:
        await self.reader.load()
        await self.sender.start()
        self.reader.start()

    async def kill(self) -> None:
        """End, as if killed."""
        self.client.is_dead = True
        self.server.die()
        await self.sender.stop()


class EduCrashTests(DatabaseTestCase):
    timeout = 120

    async def setUp(self) -> None:
        await super().setUp()
        self.other = OtherServer()
        server = await SyncServer.start(self.db)
        self.alice = await server.user("alice")
        async with self.db.connection() as connection:
            await connection.execute(
                "INSERT INTO devices (user_id, device_id, created_ms) VALUES (%s, %s, 0)",
                (self.alice.user_id, self.alice.device_id),
            )
        self.room_id = await server.create_room(self.alice)
        await server.remote.member(self.room_id, BOB, "join")
        self.process = Process(server, DyingClient(self.other.receive, None, after_receipt=False))
        await self.process.start()

    async def clean_up(self) -> None:
        await self.process.kill()
        await super().clean_up()

    async def succeed(self, dies_at: int | None = None, *, after_receipt: bool = False) -> None:
        """Kill the process, and start the next one; its way may be cut at a transaction."""
        await self.process.kill()
        client = DyingClient(self.other.receive, dies_at, after_receipt=after_receipt)
        self.process = Process(await SyncServer.start(self.db), client)
        await self.process.start()

    async def act(self, label: str) -> tuple[list[str], list[dict[str, Any]]]:
        """Send messages and upload keys until the process has died.

        Returns the messages that were acknowledged, and the keys that may be current now: the last
        ones that were, and later ones, which may be stored.
        """
        sent: list[str] = []
        current: list[dict[str, Any]] = []
        encryption = self.process.server.encryption
        for number in range(MESSAGES):
            body = f"{label} {number}"
            content = msgspec.Raw(msgspec.json.encode({"body": body}))
            sending = encryption.to_device.send(
                self.alice, "m.test", body, {BOB: {"PHONE": content}}
            )
            if not await self._is_done(sending):
                break
            sent.append(body)
            keys = _keys(self.alice, body)
            if not await self._is_done(encryption.uploads.upload(self.alice, keys, {}, {})):
                return sent, [*current, keys] if current else []
            current = [keys]
        return sent, current

    async def _is_done(self, action: Any) -> bool:
        acting = Deferred.fromCoroutine(action)
        await until(lambda: bool(acting.called or self.process.server.is_dead))
        return acting.called

    async def arrives(self, sent: list[str], current: list[dict[str, Any]]) -> None:
        """Wait until the other server has all of it, each message with one id."""
        await until(lambda: {*sent} <= {*self.other.messages.values()})
        bodies = list(self.other.messages.values())
        self.assertEqual(len(bodies), len({*bodies}))
        self.assertEqual([each for each in dict.fromkeys(bodies) if each in sent], sent)
        if current:
            await until(lambda: self._last_update().get("keys") in current)

    def _last_update(self) -> dict[str, Any]:
        updates = self.other.of_type("m.device_list_update")
        return updates[-1] if updates else {}

    async def test_killed_at_any_commit(self) -> None:
        """What was acknowledged to the client arrives, whatever has been stored of the rest."""
        for commits in range(1, 4 * MESSAGES):
            with self.subTest(f"after commit {commits}"):
                await self.succeed()
                self.process.server.crash_after(commits)
                done = await self.act(f"commit {commits}")
                await self.succeed()
                await self.arrives(*done)

    async def test_killed_at_any_transaction(self) -> None:
        """Whether the other server got the transaction or not, it has everything in the end."""
        for after_receipt in (False, True):
            for dies_at in range(2 * MESSAGES):
                with self.subTest(f"transaction {dies_at}, received: {after_receipt}"):
                    await self.succeed(dies_at, after_receipt=after_receipt)
                    done = await self.act(f"{after_receipt} {dies_at}")
                    self.assertEqual(len(done[0]), MESSAGES)
                    await self.succeed()
                    await self.arrives(*done)

    async def test_killed_while_the_other_server_is_gone(self) -> None:
        """All messages arrive, and the newest keys."""
        for commits in range(1, 3 * MESSAGES):
            with self.subTest(f"after commit {commits}"):
                await self.succeed()
                self.process.client.is_reachable = False
                self.process.server.crash_after(commits)
                done = await self.act(f"gone {commits}")
                await self.succeed()
                await self.arrives(*done)


def _keys(owner: Requester, seed: str) -> dict[str, Any]:
    actor: Any = type("Device", (), {"user_id": owner.user_id, "device_id": owner.device_id})
    device: Actor = actor
    return DeviceKeys(device, seed).identity

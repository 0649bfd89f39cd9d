"""Receipts to and from other servers: those of a room together."""

from collections.abc import Iterable, Sequence
from typing import Any

from federation.receiving import receipt_edus
from federation.receiving.receipt_edus import ReceiptEdus
from federation.receiving.room_access import RoomAccess
from homeserver.rooms.room.room_receipts import Receipt, ReceiptsChanged
from tests.support.postgres import DatabaseTestCase
from tests.sync.sync_server import SyncServer

THERE = "there.example"
CAROL, DAVE, MALLORY = f"@carol:{THERE}", f"@dave:{THERE}", "@mallory:other.example"
READ = "m.read"


class Sent:
    """Keeps what would be sent."""

    def __init__(self) -> None:
        self.edus: list[tuple[list[str], str, Any]] = []
        self.keys: list[object] = []

    def send_edu(self, destinations: Iterable[str], kind: str, content: Any, key: object) -> None:
        """Keep it."""
        self.edus.append((list(destinations), kind, content))
        self.keys.append(key)


class ReceiptEdusTests(DatabaseTestCase):
    """A server with a room that a user here is in, and some of other servers."""

    async def setUp(self) -> None:
        await super().setUp()
        self.server = await SyncServer.start(self.db)
        self.alice = await self.server.user("alice")
        self.room_id = await self.server.create_room(self.alice)
        for user_id in (CAROL, DAVE, MALLORY):
            await self.server.remote.member(self.room_id, user_id, "join")
        self.events = [await self.server.say(self.alice, self.room_id, str(n)) for n in range(2)]
        registry = self.server.core.registry
        self.sent = Sent()
        sender: Any = self.sent
        receipts = self.server.sync.receipts
        self.edus = ReceiptEdus(registry, RoomAccess(registry), receipts, sender)
        self.batches: list[list[ReceiptsChanged]] = []
        self.server.log.subscribe(self.published)

    async def clean_up(self) -> None:
        await self.server.stop()
        await super().clean_up()

    def published(self, entries: Sequence[Any]) -> None:
        changes = [each for each in entries if isinstance(each, ReceiptsChanged)]
        if changes:
            self.batches.append(changes)

    async def test_receipts_of_a_room_are_one_entry(self) -> None:
        """Those that do not hold are left out, and the others are stored."""
        first, second = self.events
        data = {"ts": 5}
        await self.edus.receive(
            THERE,
            {
                self.room_id: {
                    READ: {
                        CAROL: {"event_ids": [first], "data": data},
                        MALLORY: {"event_ids": [first], "data": data},
                        f"@erin:{THERE}": {"event_ids": [first], "data": data},
                        DAVE: {"event_ids": [second], "data": {"ts": 6, "thread_id": "main"}},
                    }
                },
                "!unknown:x": {READ: {CAROL: {"event_ids": [first], "data": data}}},
            },
        )

        ((entry,),) = self.batches
        self.assertEqual(
            [(one.user_id, one.thread_id, one.event_id, one.ts) for one in entry.receipts],
            [(CAROL, None, first, 5), (DAVE, "main", second, 6)],
        )
        self.assertTrue(all(one.event_position for one in entry.receipts))

    async def test_malformed_receipts_are_left_out(self) -> None:
        """An event or a thread that cannot exist."""
        first = self.events[0]
        long, thread = "$" + "x" * 300, {"ts": 5, "thread_id": "x" * 300}
        for event_ids, data in (([long], {"ts": 5}), ([""], {"ts": 5}), ([first], thread)):
            content = {self.room_id: {READ: {CAROL: {"event_ids": event_ids, "data": data}}}}
            await self.edus.receive(THERE, content)

        self.assertEqual(self.batches, [])

    async def test_receipts_of_an_entry_are_sent_together(self) -> None:
        """Another server gets one EDU of those that concern it, in which a user has one place."""
        alice, bob = self.alice.user_id, "@bob:example.org"
        first, second = self.events
        room = await self.server.core.registry.get(self.room_id)
        receipts = (
            Receipt(alice, READ, None, first, 1, 5),
            Receipt(alice, READ, "main", second, 2, 6),
            Receipt(alice, "m.read.private", None, second, 2, 6),
            Receipt(bob, READ, None, first, 1, 7),
            Receipt(CAROL, READ, None, first, 1, 8),
        )

        self.edus.apply([ReceiptsChanged(9, room.room_nid, receipts)])

        together = {
            alice: {"event_ids": [first], "data": {"ts": 5}},
            bob: {"event_ids": [first], "data": {"ts": 7}},
        }
        thread = {alice: {"event_ids": [second], "data": {"ts": 6, "thread_id": "main"}}}
        self.assertEqual(
            [content for _, _, content in self.sent.edus],
            [{self.room_id: {READ: together}}, {self.room_id: {READ: thread}}],
        )
        self.assertEqual(set(self.sent.edus[0][0]), {THERE, "other.example"})
        self.assertEqual(len(set(self.sent.keys)), 2)

    async def test_single_receipt_replaces_the_one_that_waits(self) -> None:
        """A slow server gets how far a user has read, not how."""
        room = await self.server.core.registry.get(self.room_id)
        for position, event_id in enumerate(self.events, 1):
            receipt = Receipt(self.alice.user_id, READ, None, event_id, position, 5)
            self.edus.apply([ReceiptsChanged(position, room.room_nid, (receipt,))])

        self.assertEqual(len(self.sent.keys), 2)
        self.assertEqual(len(set(self.sent.keys)), 1)

    async def test_edu_has_a_bound(self) -> None:
        """Other servers do not accept messages of any size."""
        self.patch(receipt_edus, "MAX_SENT", 2)
        room = await self.server.core.registry.get(self.room_id)
        readers = [f"@u{number}:example.org" for number in range(5)]
        receipts = [Receipt(reader, READ, None, self.events[0], 1, 5) for reader in readers]

        self.edus.apply([ReceiptsChanged(9, room.room_nid, tuple(receipts))])

        users = [list(content[self.room_id][READ]) for _, _, content in self.sent.edus]
        self.assertEqual(users, [readers[:2], readers[2:4], readers[4:]])
        self.assertEqual(len(set(self.sent.keys)), 3)

"""Many receipts within a second: one commit, and one log entry for each room."""

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, gatherResults
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from homeserver.accounts.sessions.requester import Requester
from homeserver.concurrency.bursts import Bursts
from homeserver.protocol.errors import Forbidden, Unavailable, UserLimitExceeded
from homeserver.rooms.ephemeral import receipt_bursts, receipts
from homeserver.rooms.room.room import Room
from homeserver.rooms.room.room_receipts import Receipt, ReceiptsChanged
from tests.support.postgres import DatabaseTestCase
from tests.support.reactor import until
from tests.sync.sync_server import SyncServer

READ, PRIVATE = "m.read", "m.read.private"
READERS = 5


class ReceiptBurstsTests(DatabaseTestCase):
    """Each receipt waits for the end of a burst. `batches` are the entries of each commit."""

    async def setUp(self) -> None:
        await super().setUp()
        self.patch(receipt_bursts, "MAX_IMMEDIATE", 0)
        self.clock = Clock()
        self.patch(receipt_bursts, "Bursts", self.make_bursts)
        await self.start()
        self.readers = [await self.server.user(f"u{number}") for number in range(READERS)]
        self.room_id = await self.server.create_room(self.readers[0])
        for reader in self.readers[1:]:
            await self.server.rooms.memberships.join(reader, self.room_id)
        sender = self.readers[0]
        self.events = [await self.server.say(sender, self.room_id, str(n)) for n in range(3)]

    async def clean_up(self) -> None:
        await self.server.stop()
        await super().clean_up()

    async def start(self) -> None:
        """Start a server on the database, or another one after the first."""
        self.server = await SyncServer.start(self.db)
        self.batches: list[list[ReceiptsChanged]] = []
        self.acknowledged: list[Requester] = []
        self.server.log.subscribe(self.published)

    def make_bursts(self, _: object, *args: Any, **how: Any) -> Bursts[Any]:
        """Bursts that end when the test says so."""
        self.bursts = Bursts(self.clock, *args, **how)
        return self.bursts

    async def end_burst(self, reading: Sequence[Deferred[None]]) -> None:
        """Let a burst end, once all these requests wait."""
        await until(lambda: self.bursts._waiting >= len(reading))
        self.clock.advance(receipt_bursts.BURST_SECONDS)

    async def read_together(self, reading: Sequence[Deferred[None]]) -> None:
        """Let a burst of requests end, none of which is refused."""
        await self.end_burst(reading)
        await gatherResults(reading)

    def published(self, entries: Sequence[Any]) -> None:
        changes = [each for each in entries if isinstance(each, ReceiptsChanged)]
        if changes:
            self.batches.append(changes)

    def read(
        self, reader: Requester, event: int = 2, kind: str = READ, **thread: str
    ) -> Deferred[None]:
        return self.mark(reader, self.room_id, kind, self.events[event], **thread)

    def mark(self, reader: Requester, *where: str, **thread: str) -> Deferred[None]:
        async def mark() -> None:
            await self.server.sync.markers.mark(reader, *where, **thread)
            self.acknowledged.append(reader)

        return Deferred.fromCoroutine(mark())

    async def room(self) -> Room:
        return await self.server.core.registry.get(self.room_id)

    async def stored(self, reader: Requester) -> list[Receipt]:
        return await self.server.sync.receipts.of_user(await self.room(), reader.user_id)

    async def outcomes(self, reading: Sequence[Deferred[None]]) -> list[object]:
        """The class of what refuses each request of a burst, or `None`."""
        await self.end_burst(reading)
        found = await DeferredList(reading, consumeErrors=True)
        return [result.type if isinstance(result, Failure) else None for _, result in found]

    async def test_all_are_one_commit_and_one_entry_and_then_acknowledged(self) -> None:
        """Hundreds of readers of a message cost as much as one, and none of them is forgotten."""
        acknowledged_at_commit: list[int] = []
        self.server.log.subscribe(lambda _: acknowledged_at_commit.append(len(self.acknowledged)))

        await self.read_together([self.read(reader) for reader in self.readers])

        ((entry,),) = self.batches
        self.assertEqual(
            [receipt.user_id for receipt in entry.receipts],
            [reader.user_id for reader in self.readers],
        )
        self.assertEqual(acknowledged_at_commit, [0])
        self.assertEqual(self.acknowledged, self.readers)

    async def test_each_room_has_an_entry_of_the_same_commit(self) -> None:
        """Also right after a restart, when nothing is in memory, and they survive the next one."""
        reader = self.readers[1]
        other_room = await self.server.create_room(reader)
        other = await self.server.say(reader, other_room, "hello")
        await self.server.stop()
        await self.start()

        loads: list[int] = []
        load_all = self.server.sync.receipts._load_all

        async def load(rooms: Sequence[int]) -> Any:
            loads.append(len(rooms))
            return await load_all(rooms)

        self.patch(self.server.sync.receipts, "_load_all", load)
        mine = [self.read(each) for each in self.readers]
        await self.read_together([*mine, self.mark(reader, other_room, READ, other)])

        self.assertEqual(loads, [2])
        self.assertEqual([len(batch) for batch in self.batches], [2])
        sizes = sorted(len(entry.receipts) for entry in self.batches[0])
        self.assertEqual(sizes, [1, READERS])
        await self.server.stop()
        await self.start()
        for each in self.readers:
            self.assertEqual([one.event_id for one in await self.stored(each)], [self.events[2]])

    async def test_later_one_of_several_devices_wins(self) -> None:
        """Whatever their order, the receipt is that of the later event, once."""
        backwards, forwards = self.readers[:2]
        orders = [(backwards, 2), (forwards, 0), (backwards, 0), (forwards, 2), (forwards, 1)]

        await self.read_together([self.read(reader, event) for reader, event in orders])

        ((entry,),) = self.batches
        self.assertEqual(
            sorted((one.user_id, one.event_id) for one in entry.receipts),
            sorted((reader.user_id, self.events[2]) for reader in (backwards, forwards)),
        )

    async def test_kinds_and_threads_are_receipts_of_their_own(self) -> None:
        """What is read in a thread, or in private, says nothing of the others."""
        reader = self.readers[0]

        await self.read_together(
            [
                self.read(reader, 0),
                self.read(reader, 2, PRIVATE),
                self.read(reader, 1, thread_id="main"),
            ]
        )

        found = {
            (one.receipt_type, one.thread_id): one.event_id for one in await self.stored(reader)
        }
        first, second, third = self.events
        self.assertEqual(
            found, {(READ, None): first, (PRIVATE, None): third, (READ, "main"): second}
        )
        self.assertEqual(len(self.batches), 1)

    async def test_receipt_that_waits_does_not_undo_a_later_one(self) -> None:
        """One that moved meanwhile, as another device's did."""
        reader = self.readers[0]
        waiting = self.read(reader, 1)
        now = Receipt(reader.user_id, READ, None, self.events[2], 1 << 60, 0)
        await self.server.sync.receipts.move(await self.room(), [now])

        await self.read_together([waiting])

        self.assertEqual(await self.stored(reader), [now])

    async def test_user_who_leaves_meanwhile_is_refused_alone(self) -> None:
        """What was checked before the wait may not hold after it."""
        gone = self.readers[1]
        reading = [self.read(reader) for reader in self.readers]
        await self.server.rooms.memberships.leave(gone, self.room_id)

        outcomes = await self.outcomes(reading)

        self.assertEqual(outcomes, [None, Forbidden, None, None, None])
        self.assertEqual(await self.stored(gone), [])
        self.assertEqual(len(await self.stored(self.readers[2])), 1)

    async def test_failure_of_a_room_does_not_concern_others(self) -> None:
        """One that is gone, or cannot be read."""
        reader = self.readers[0]
        rooms = [await self.server.create_room(reader) for _ in range(2)]
        events = [await self.server.say(reader, room, "hello") for room in rooms]
        registry = self.server.core.registry
        gone, broken = [(await registry.get(room)).room_nid for room in rooms]
        by_number = registry.by_number

        async def fail(number: int) -> Room | None:
            if number == broken:
                raise Unavailable("The room cannot be read")
            return None if number == gone else await by_number(number)

        pairs = zip(rooms, events, strict=True)
        reading = [self.mark(reader, room, READ, event) for room, event in pairs]
        reading.append(self.read(reader))
        self.patch(registry, "by_number", fail)

        self.assertEqual(await self.outcomes(reading), [Forbidden, Unavailable, None])
        self.assertEqual([len(batch) for batch in self.batches], [1])

    async def test_cancelled_request_harms_nobody(self) -> None:
        """Its client does not wait any more."""
        reading = [self.read(reader) for reader in self.readers]
        reading[1].cancel()
        reading[1].addErrback(lambda _: None)

        await self.read_together(reading)

        ((entry,),) = self.batches
        self.assertEqual(len(entry.receipts), READERS - 1)
        self.assertEqual(await self.stored(self.readers[1]), [])

    async def test_request_that_is_cancelled_while_it_is_stored_harms_nobody(self) -> None:
        """The others are acknowledged."""
        reading: list[Deferred[None]] = []
        self.server.log.subscribe(lambda _: reading[1].cancel())
        reading += [self.read(reader) for reader in self.readers]
        reading[1].addErrback(lambda _: None)

        await self.read_together(reading)

        self.assertEqual(len(self.acknowledged), READERS - 1)

    async def test_user_with_too_many_threads_is_refused_alone(self) -> None:
        """Those that wait together count, too."""
        self.patch(receipts, "MAX_OF_USER", 2)
        many, other = self.readers[:2]
        roots = [await self.server.say(other, self.room_id, f"root {n}") for n in range(3)]

        reading = [self.mark(many, self.room_id, READ, root, thread_id=root) for root in roots]
        reading.append(self.mark(other, self.room_id, READ, roots[0], thread_id=roots[0]))

        self.assertEqual(await self.outcomes(reading), [None, None, UserLimitExceeded, None])

    async def test_all_are_refused_while_nothing_can_be_stored(self) -> None:
        """No client waits in vain."""

        def refuse() -> None:
            raise Unavailable("The database is away")

        reading = [self.read(reader) for reader in self.readers]
        self.patch(self.server.log, "check_open", refuse)

        self.assertEqual(await self.outcomes(reading), [Unavailable] * READERS)

    async def test_defect_refuses_all_that_wait(self) -> None:
        """Nobody waits forever for an answer."""

        async def fail(*_: object) -> None:
            raise ZeroDivisionError

        reading = [self.read(reader) for reader in self.readers]
        self.patch(self.server.sync.receipts, "get_ready_to_move", fail)

        self.assertEqual(await self.outcomes(reading), [ZeroDivisionError] * READERS)

    async def test_one_commit_has_a_bound(self) -> None:
        """Thousands of receipts are published in parts, between which others are served."""
        self.patch(receipt_bursts, "MAX_TOGETHER", 2)

        await self.read_together([self.read(reader) for reader in self.readers])

        sizes = [[len(entry.receipts) for entry in batch] for batch in self.batches]
        self.assertEqual(sizes, [[2], [2], [1]])
        self.assertEqual(len(self.acknowledged), READERS)

    async def test_markers_of_one_request_wait_once(self) -> None:
        """They are one entry, with those of others."""
        markers = {READ: self.events[0], PRIVATE: self.events[1], "m.fully_read": self.events[1]}
        marking = self.server.sync.markers.mark_all(self.readers[0], self.room_id, markers)

        await self.read_together([Deferred.fromCoroutine(marking), self.read(self.readers[1])])

        ((entry,),) = self.batches
        self.assertEqual([one.receipt_type for one in entry.receipts], [READ, PRIVATE, READ])

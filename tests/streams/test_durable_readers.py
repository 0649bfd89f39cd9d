"""Durable readers: every item is handled, whatever ends the process, and no reader delays another.

A process is simulated by its objects: a crash is that nothing they do has an effect any more.
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from homeserver.protocol.errors import Unavailable
from homeserver.storage.database.batch import Batch, BatchStatement, Row
from homeserver.storage.database.database import Connection, Database
from homeserver.storage.database.reader_positions import reader_position
from homeserver.streams import durable_reader
from homeserver.streams.counters import Counters, open_counters
from homeserver.streams.durable_reader import STORE_IDLE_SECONDS, ItemPage
from homeserver.streams.durable_readers import RETRIES, STORE_EVENTS, STORE_SECONDS, DurableReaders
from homeserver.streams.log import Log
from tests.support.postgres import DatabaseTestCase
from tests.support.reactor import pause, until

NOTE = BatchStatement(
    "note",
    "INSERT INTO notes SELECT * FROM unnest(%s::int8[], %s::text[]) ON CONFLICT DO NOTHING",
    ("int8", "text"),
)
DONE = BatchStatement(
    "done",
    "INSERT INTO done SELECT * FROM unnest(%s::int8[]) ON CONFLICT DO NOTHING",
    ("int8",),
)
PAGE = 3


@dataclass(frozen=True, slots=True)
class Noted:
    """A log entry, and at the same time the item of the reader."""

    position: int
    text: str


class Notes:
    """The source of the reader: all notes that it does not have to ignore."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def select(self, entries: Sequence[Any]) -> Iterator[Noted]:
        return (entry for entry in entries if isinstance(entry, Noted) and entry.text != "ignored")

    async def load(self, after: int, upto: int) -> ItemPage[Noted]:
        rows = await self._db.run(notes_between, after, upto)
        items = [Noted(*row) for row in rows if row[1] != "ignored"]
        return ItemPage(items, upto if len(rows) < PAGE else rows[-1][0])


async def notes_between(db: Connection, after: int, upto: int) -> list[tuple[int, str]]:
    cursor = await db.execute(
        "SELECT n, note FROM notes WHERE n > %s AND n <= %s ORDER BY n LIMIT %s",
        (after, upto, PAGE),
    )
    return await cursor.fetchall()


class Process:
    """A log with one reader. `handled` is what it has handled, `rows` says how."""

    def __init__(self, db: Database, counters: Counters) -> None:
        self.db = db
        self.clock = Clock()
        self.is_dead = False
        self.handled: list[str] = []
        self.before_write: Callable[[Batch], None] = lambda _: None
        self.after_write: Callable[[Batch], None] = lambda _: None
        self.before_load: Callable[[], None] = lambda: None
        self.after_load: Callable[[], None] = lambda: None
        self.before_handling: Callable[[Noted], Awaitable[None] | None] = lambda _: None
        self.after_handling: Callable[[Noted], None] = lambda _: None
        self.log = Log(reactor, self._write, counters)  # type: ignore[arg-type]
        self.readers = DurableReaders(self.log, db, self.clock)
        notes = self._notes = Notes(db)
        source = type("Source", (), {"select": staticmethod(notes.select), "load": self._load})
        self.unsaved: int | None = None  # the position of the oldest item that is not saved
        self.reader = self.readers.add(
            "notes", source, self._handle, first_unsaved=lambda: self.unsaved
        )

    @classmethod
    async def make(cls, db: Database) -> "Process":
        """The next process on a database; it is not started."""
        return cls(db, await open_counters(db, reactor))

    async def start(self) -> None:
        await self.readers.load()
        self.readers.start()

    async def note(self, *texts: str) -> None:
        """Append entries; returns when they are durable and published."""
        done = []
        for text in texts:
            position = self.log.next_position()
            done.append(self.log.append(Noted(position, text), [NOTE.row(position, text)]))
        for each in done:
            await each

    async def idle(self) -> None:
        await until(lambda: self.reader.is_idle)
        await self.log.flush()

    async def die(self) -> None:
        """End, as if killed: whatever is in progress never goes on."""
        self.is_dead = True
        self.readers._storing.stop()

    def crash_at(self, point: str) -> None:
        """Die at a named point, at the second time that it is passed."""
        times = [0]

        def passed(*_: object) -> None:
            times[0] += 1
            if times[0] == 2:
                self.is_dead = True

        setattr(self, point, passed)

    async def _write(self, batch: Batch) -> None:
        self.before_write(batch)
        await self._check()
        await self.db.write_batch(batch)
        self.after_write(batch)
        await self._check()

    async def _load(self, after: int, upto: int) -> ItemPage[Noted]:
        self.before_load()
        await self._check()
        page = await self._notes.load(after, upto)
        self.after_load()
        await self._check()
        return page

    async def _handle(self, item: Noted) -> list[Row]:
        # So that a crash finds everything of the items before stored.
        await self.log.flush()
        waiting = self.before_handling(item)
        if waiting is not None:
            await waiting
        await self._check()
        self.handled.append(item.text)
        self.after_handling(item)
        await self._check()
        return [DONE.row(item.position)]

    async def _check(self) -> None:
        if self.is_dead:
            await Deferred()


POINTS = (
    "before_write", "after_write", "before_load", "after_load", "before_handling", "after_handling",
)  # fmt: skip


class ReaderTestCase(DatabaseTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        await self.execute("CREATE TABLE notes (n int8 PRIMARY KEY, note text)")
        await self.execute("CREATE TABLE done (n int8 PRIMARY KEY)")
        await self.begin()

    async def clean_up(self) -> None:
        if not self.process.is_dead:
            await self.process.readers.stop()
            await self.process.log.flush()
        await super().clean_up()

    async def begin(self) -> Process:
        self.process = await Process.make(self.db)
        await self.process.start()
        return self.process

    async def succeed(self) -> Process:
        """The process that is started after the present one has died."""
        await self.process.die()
        return await self.begin()

    async def execute(self, statement: str) -> Any:
        async def run(db: Connection) -> Any:
            cursor = await db.execute(statement.encode())
            return await cursor.fetchall() if cursor.description else None

        return await self.db.run(run)

    async def undone(self) -> list[str]:
        """The stored notes that were not handled."""
        rows = await self.execute(
            "SELECT note FROM notes WHERE note <> 'ignored' AND n NOT IN (SELECT n FROM done)"
        )
        return [note for (note,) in rows]


class CrashTests(ReaderTestCase):
    async def test_a_crash_at_any_point_loses_no_item(self) -> None:
        """What was stored is handled, by this process or by the next."""
        for point in POINTS:
            with self.subTest(point):
                await self.succeed()
                self.process.crash_at(point)
                for number in range(2 * PAGE + 1):
                    Deferred.fromCoroutine(self.process.note(f"{point} {number}", "ignored"))
                    await pause(0.001)
                await until(lambda: self.process.is_dead or self.process.reader.is_idle)
                await pause(0.05)

                await self.succeed()
                await self.process.idle()

                self.assertEqual(await self.undone(), [])

    async def test_a_crash_at_any_point_of_a_backlog_loses_no_item(self) -> None:
        """A reader that was far behind, and is killed again and again, arrives nevertheless."""
        for point in POINTS:
            with self.subTest(point):
                await self.process.die()
                behind = await Process.make(self.db)
                await behind.note(*(f"{point} {number}" for number in range(3 * PAGE + 1)))
                self.process = behind
                for _ in range(3):
                    await self.process.die()
                    self.process = await Process.make(self.db)
                    self.process.crash_at(point)
                    await self.process.start()
                    await until(lambda: self.process.is_dead or self.process.reader.is_idle)
                    await pause(0.05)

                await self.succeed()
                await self.process.idle()

                self.assertEqual(await self.undone(), [])

    async def test_effects_and_position_are_one_transaction(self) -> None:
        """What was written with the position is never handled twice."""
        await self.process.note("one", "two")
        await self.process.idle()

        await self.succeed()
        await self.process.idle()

        self.assertEqual(self.process.handled, [])

    async def test_a_stop_is_no_crash(self) -> None:
        """After a normal stop nothing is done twice, also where there are no rows."""
        self.process.reader._handle = lambda item: self.process.handled.append(item.text)
        await self.process.note("one", "two")
        await self.process.idle()
        await self.process.readers.stop()
        await self.process.log.flush()

        await self.succeed()
        await self.process.idle()

        self.assertEqual(self.process.handled, [])


class BacklogTests(ReaderTestCase):
    async def test_items_are_handled_in_order_without_a_read(self) -> None:
        """A reader that keeps up costs no query."""
        await self.process.idle()
        runs = self.db.runs
        await self.process.note("one", "ignored", "two")
        await self.process.note("three")
        await self.process.idle()

        self.assertEqual(self.process.handled, ["one", "two", "three"])
        self.assertEqual(self.db.runs, runs)

    async def test_a_slow_reader_needs_no_memory_and_holds_nobody_up(self) -> None:
        """Items beyond the queue are read when it is their turn; writers do not wait."""
        self.patch(durable_reader, "MAX_QUEUED", 4)
        gate: Deferred[None] = Deferred()
        self.process.before_handling = lambda _: None if gate.called else gate
        texts = [str(number) for number in range(20)]
        for text in texts:
            await self.process.note(text)
        self.assertLessEqual(len(self.process.reader._queue), 4)
        self.assertEqual(self.process.handled, [])
        self.process.clock.advance(5)
        self.assertGreaterEqual(self.process.reader.behind_seconds, 5)

        gate.callback(None)
        await self.process.idle()

        self.assertEqual(self.process.reader.behind_seconds, 0.0)
        # The one that waited may be handled twice.
        self.assertEqual(list(dict.fromkeys(self.process.handled)), texts)

    async def test_a_busy_reader_that_keeps_up_is_not_behind(self) -> None:
        """An operator is alarmed by a reader that stands still, not by one that always works."""
        gates: list[Deferred[None]] = [Deferred() for _ in range(11)]
        waiting = list(gates)
        self.process.before_handling = lambda _: waiting.pop(0)
        await self.process.note("first")
        for number in range(10):
            await self.process.note(str(number))
            gates[number].callback(None)
            await until(lambda number=number: len(waiting) == 9 - number)
            self.process.clock.advance(1)
        self.assertFalse(self.process.reader.is_idle)
        self.assertLessEqual(self.process.reader.behind_seconds, 2)

        for _ in range(5):
            self.process.clock.advance(1)
        self.assertGreaterEqual(self.process.reader.behind_seconds, 5)

        gates[10].callback(None)
        await self.process.idle()
        self.assertEqual(self.process.reader.behind_seconds, 0.0)

    async def test_entries_during_the_last_page_are_not_lost(self) -> None:
        """A busy server never stands still for a reader that catches up."""
        await self.process.note("before")
        await self.process.idle()
        await self.process.die()
        behind = await Process.make(self.db)
        await behind.note("missed")
        self.process = await Process.make(self.db)
        written: list[Deferred[None]] = []
        self.process.after_load = lambda: written.append(
            Deferred.fromCoroutine(self.process.note("during"))
        )
        await self.process.start()
        await until(lambda: bool(written) and written[0].called)
        await self.process.note("after")
        await self.process.idle()

        self.assertEqual(self.process.handled, ["missed", "during", "after"])

    async def test_a_new_reader_begins_with_what_happens_from_now_on(self) -> None:
        """An update that brings a reader does not have it handle the whole past."""
        await self.execute("DELETE FROM reader_positions")
        await self.process.die()
        behind = await Process.make(self.db)
        await behind.note("past")

        await self.begin()
        await self.process.note("present")
        await self.process.idle()

        self.assertEqual(self.process.handled, ["present"])


class FailureTests(ReaderTestCase):
    async def test_an_outage_delays_an_item(self) -> None:
        """It is handled again until that succeeds, before all later ones."""
        failures = [Unavailable("gone"), Unavailable("gone")]

        def fail(_: Noted) -> None:
            if failures:
                raise failures.pop()

        self.process.before_handling = fail
        await self.process.note("one", "two")
        for failed in (1, 2):
            await until(lambda: bool(self.process.clock.getDelayedCalls()[1:]))
            self.process.clock.advance(RETRIES.pause(failed))
        await self.process.idle()

        self.assertEqual(self.process.handled, ["one", "two"])

    async def test_an_item_that_cannot_be_handled_is_skipped(self) -> None:
        """A defect that one item meets does not keep the reader from all others."""

        def fail(item: Noted) -> None:
            if item.text == "bad":
                raise ValueError(item.text)

        self.process.before_handling = fail
        await self.process.note("one", "bad", "two")
        await self.process.idle()

        self.assertEqual(self.process.handled, ["one", "two"])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    async def test_nothing_is_skipped_when_a_page_cannot_be_read(self) -> None:
        """However often reading fails: what was not read is not handled."""
        await self.process.die()
        behind = await Process.make(self.db)
        await behind.note("missed")
        self.process = await Process.make(self.db)
        failures = [ValueError("defect"), Unavailable("gone")]

        def fail() -> None:
            if failures:
                raise failures.pop()

        self.process.before_load = fail
        await self.process.start()
        await self.process.note("later")
        for failed in (1, 2):
            await until(lambda: bool(self.process.clock.getDelayedCalls()[1:]))
            self.process.clock.advance(RETRIES.pause(failed))
        await self.process.idle()

        self.assertEqual(self.process.handled, ["missed", "later"])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    async def test_a_reader_that_waits_ends_with_the_server(self) -> None:
        """A stop does not wait for the database, and the item is handled after the next start."""

        def fail(_: Noted) -> None:
            raise Unavailable("gone")

        self.process.before_handling = fail
        await self.process.note("one")
        await until(lambda: bool(self.process.clock.getDelayedCalls()[1:]))
        await self.process.readers.stop()
        await self.process.log.flush()

        await self.succeed()
        await self.process.idle()

        self.assertEqual(self.process.handled, ["one"])


class PositionTests(ReaderTestCase):
    async def stored(self) -> int:
        await self.process.log.flush()
        stored = await self.db.run(reader_position, "notes")
        assert stored is not None
        return stored

    async def test_a_position_without_items_is_stored_now_and_then(self) -> None:
        """A start does not read the whole past of a reader that seldom has an item."""
        await self.process.idle()
        before = await self.stored()
        await self.process.note("ignored")
        self.process.clock.advance(STORE_SECONDS)
        self.assertEqual(await self.stored(), before)

        self.process.clock.advance(STORE_IDLE_SECONDS)

        self.assertGreater(await self.stored(), before)

    async def test_positions_without_items_are_stored_after_many_events(self) -> None:
        """On a busy server, a minute without items can be a hundred thousand events."""
        await self.process.idle()
        before = await self.stored()
        await self.process.note("ignored")
        for _ in range(STORE_EVENTS - 1):
            self.process.log.next_event_number()
        self.process.clock.advance(STORE_SECONDS)
        self.assertEqual(await self.stored(), before)

        self.process.log.next_event_number()
        self.process.clock.advance(STORE_SECONDS)

        self.assertGreater(await self.stored(), before)

    async def test_a_stop_stores_all_positions(self) -> None:
        """A start that follows reads nothing once more."""
        await self.process.idle()
        await self.process.note("ignored")
        last = self.process.log.position

        await self.process.readers.stop()

        self.assertEqual(await self.stored(), last)

    async def test_positions_are_stored_once_a_second(self) -> None:
        """Handling without rows costs no commit of its own."""
        self.process.reader._handle = lambda item: None
        await self.process.idle()
        before = await self.stored()
        await self.process.note("one")
        self.assertEqual(await self.stored(), before)

        self.process.clock.advance(STORE_SECONDS)

        self.assertGreater(await self.stored(), before)

    async def test_what_is_only_in_memory_is_handled_again(self) -> None:
        """A reader may be done with items and save them later: until then it begins with them."""
        self.process.reader._handle = lambda item: None
        await self.process.note("one")
        upto = self.process.log.position
        await self.process.note("two", "three")
        self.process.unsaved = upto + 1
        await self.process.idle()
        self.assertEqual(self.process.reader.position, self.process.log.position)

        self.process.clock.advance(STORE_SECONDS)
        self.assertEqual(await self.stored(), upto)

        self.process.unsaved = None
        self.process.clock.advance(STORE_SECONDS)
        self.assertGreater(await self.stored(), upto)


class ConcurrentTests(ReaderTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        await self.process.die()
        self.process = await Process.make(self.db)
        self.gates: dict[str, Deferred[None]] = {}
        self.concurrent = self.process.readers.add_concurrent(
            "concurrent", Notes(self.db), self.handle, slots=2
        )
        await self.process.start()

    async def handle(self, item: Noted) -> None:
        self.gates[item.text] = Deferred()
        await self.gates[item.text]

    async def test_one_item_does_not_delay_the_others(self) -> None:
        """A server that does not respond holds one slot; the position stays before its item."""
        before = self.process.log.position
        await self.process.note("slow", "two", "three", "four")
        upto = self.process.log.position
        await until(lambda: len(self.gates) == 2)
        self.gates["two"].callback(None)
        await until(lambda: "three" in self.gates)
        self.gates["three"].callback(None)
        await until(lambda: "four" in self.gates)

        self.assertLess(self.concurrent.position, upto)
        rows = await self.execute(
            f"SELECT note FROM notes WHERE n > {before} AND n <= {self.concurrent.position}"
        )
        self.assertEqual(rows, [])

        for text in ("slow", "four"):
            self.gates[text].callback(None)
        await until(lambda: self.concurrent.is_idle)
        self.assertGreaterEqual(self.concurrent.position, upto)

    async def test_an_item_in_progress_is_begun_again_after_a_crash(self) -> None:
        """It is not known how far it came."""
        await self.process.note("slow", "two", "three")
        await until(lambda: len(self.gates) == 2)
        self.gates["two"].callback(None)
        self.process.clock.advance(STORE_SECONDS)
        await self.process.log.flush()
        await self.process.die()
        self.gates.clear()
        self.process = await Process.make(self.db)
        self.concurrent = self.process.readers.add_concurrent(
            "concurrent", Notes(self.db), self.handle, slots=3
        )
        await self.process.start()
        await until(lambda: len(self.gates) == 3)

        self.assertEqual(set(self.gates), {"slow", "two", "three"})
        for gate in self.gates.values():
            gate.callback(None)

"""The writer of the index: nothing that cannot be written keeps the rest out, or never ends."""

from collections.abc import Sequence
from typing import Any

from psycopg.errors import DataCorrupted, QueryCanceled
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from homeserver.protocol.errors import Unavailable
from homeserver.search.index_writer import MAX_FAILURES, IndexWriter
from homeserver.search.indexed_events import RemovedEvent
from homeserver.storage.search import search_blocks

SECONDS = 60.0


class FakeDatabase:
    """A database that refuses some events, or all, with `error`; `removed` are those that left."""

    def __init__(self) -> None:
        self.refused: set[int] = set()
        self.error: Exception = DataCorrupted("an unreadable block")
        self.purged: list[int] = []
        self.removed: list[int] = []
        self.statements = 0

    async def run(self, function: Any, *args: Any) -> Any:
        self.statements += 1
        if function is search_blocks.pending_removals:
            return self.purged
        if function is search_blocks.rooms_of:
            (events,) = args
            if self.refused.intersection(events):
                raise self.error
            self.removed += events
        return []


class IndexWriterTests(TestCase):
    def setUp(self) -> None:
        self.clock, self.database = Clock(), FakeDatabase()
        database: Any = self.database
        self.writer = IndexWriter(database, self.clock)

    def write(self, events: Sequence[int]) -> "Deferred[None]":
        """Begin to write the removals of events."""
        items = [RemovedEvent(event, event) for event in events]
        return Deferred.fromCoroutine(self.writer.write(items))

    def pump(self) -> None:
        self.clock.pump([0.1] * round(SECONDS * 10))

    def test_one_event_that_cannot_be_written(self) -> None:
        """A block that the database cannot read any more costs the events in it, and no others."""
        for error in (DataCorrupted("unreadable"), QueryCanceled("too slow"), ValueError("defect")):
            self.database.error, self.database.refused = error, {17, 1_234}
            self.database.removed.clear()
            writing = self.write(range(2_000))
            self.pump()

            self.successResultOf(writing)
            self.assertEqual(sorted({*range(2_000)} - {17, 1_234}), sorted(self.database.removed))
            self.assertEqual(len(self.flushLoggedErrors(type(error))), 2)

    def test_nothing_can_be_written(self) -> None:
        """The search index may fail as a whole: the reader, the job and the start go on."""
        self.database.refused = {*range(2_000)}
        writing = self.write(range(2_000))
        self.pump()

        self.successResultOf(writing)
        self.assertLess(self.database.statements, 2 * MAX_FAILURES)
        self.assertTrue(self.flushLoggedErrors(DataCorrupted))

    def test_a_purged_event_that_cannot_leave(self) -> None:
        """What was purged is no obstacle to new messages, and is tried again later."""
        self.database.purged, self.database.refused = [1, 2], {2}
        writing = self.write([3])
        self.pump()
        self.successResultOf(writing)
        self.assertEqual(self.database.removed, [3, 1])
        self.assertEqual(len(self.flushLoggedErrors(DataCorrupted)), 1)

        self.database.refused.clear()
        self.successResultOf(self.write([]))
        self.assertEqual(self.database.removed, [3, 1, 1, 2])

    def test_an_outage(self) -> None:
        """While the database is away, nothing is given up."""
        self.database.refused, self.database.error = {1}, Unavailable("away")
        writing = self.write([1, 2])
        for _ in range(10):
            self.pump()
        self.assertNoResult(writing)

        self.database.refused.clear()
        self.pump()

        self.successResultOf(writing)
        self.assertEqual(sorted(self.database.removed), [1, 2])

    def test_a_cancelled_write(self) -> None:
        """A background job that is stopped ends its write, and begins no other."""
        waiting: Deferred[Any] = Deferred()

        async def wait(items: object) -> None:
            await waiting

        self.patch(self.writer, "_write", wait)
        writing = self.write([1])
        writing.addErrback(lambda failure: None)
        writing.cancel()
        self.assertTrue(waiting.called)
        self.successResultOf(writing)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertFalse(self.writer._lock.locked)

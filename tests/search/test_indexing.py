"""The newest messages of the index: none is lost, nobody waits for them, and all ends in time."""

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from homeserver.concurrency.retry_pauses import Stopped
from homeserver.protocol.search.searchable import SearchKey
from homeserver.search.indexed_events import IndexedEvent, IndexItem, RemovedEvent
from homeserver.search.indexing import COLLECT_SECONDS, MAX_ITEMS, REMOVE_SECONDS, Indexing


def item(position: int) -> IndexedEvent:
    """An item at a position."""
    return IndexedEvent(
        position, position, 1, "@alice:example.org", position, SearchKey.BODY, b"xx", False, 100
    )


class FakeWriter:
    """A writer whose writes end when the test says so."""

    def __init__(self) -> None:
        self.written: list[list[int]] = []
        self.running: list[Deferred[None]] = []

    async def write(self, items: list[IndexItem]) -> None:
        done: Deferred[None] = Deferred()
        self.running.append(done)
        await done
        self.written.append([each.position for each in items])

    def end(self, error: Exception | None = None) -> None:
        """End the oldest write."""
        done = self.running.pop(0)
        if error is None:
            done.callback(None)
        else:
            done.errback(error)


class IndexingTests(TestCase):
    def setUp(self) -> None:
        self.clock, self.writer = Clock(), FakeWriter()
        writer: Any = self.writer
        self.indexing = Indexing(writer, self.clock)

    def test_items_are_written_together(self) -> None:
        """A busy server writes many messages at once; their reader waits for none of them."""
        for position in range(1, 6):
            self.assertIsNone(self.indexing.handle(item(position)))
        self.assertEqual(self.indexing.first_unsaved(), 1)
        self.clock.advance(COLLECT_SECONDS)
        self.indexing.handle(item(6))
        self.assertEqual(self.indexing.first_unsaved(), 1)

        self.writer.end()

        self.assertEqual(self.writer.written, [[1, 2, 3, 4, 5]])
        self.assertEqual(self.indexing.first_unsaved(), 6)
        self.clock.advance(COLLECT_SECONDS)
        self.writer.end()
        self.assertIsNone(self.indexing.first_unsaved())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_what_is_not_written_can_be_searched(self) -> None:
        """A user finds what they have just sent, before and while it is written."""
        self.indexing.handle(item(1))
        self.clock.advance(COLLECT_SECONDS)
        self.indexing.handle(item(2))
        self.assertEqual([each.event_nid for each in self.indexing.unwritten()], [1, 2])

        self.writer.end()

        self.assertEqual([each.event_nid for each in self.indexing.unwritten()], [2])
        self.clock.advance(COLLECT_SECONDS)
        self.writer.end()

    def test_redacted_messages_leave_the_index_soon(self) -> None:
        """A redaction does not wait for messages that are collected, and these not for it."""
        for position in (1, 2):
            self.indexing.handle(item(position))
        self.indexing.handle(RemovedEvent(3, 1))
        self.assertEqual([each.event_nid for each in self.indexing.unwritten()], [2])

        self.clock.advance(REMOVE_SECONDS)
        self.writer.end()

        self.assertEqual(self.writer.written, [[3]])
        self.assertEqual(self.indexing.first_unsaved(), 2)
        self.clock.advance(COLLECT_SECONDS)
        self.writer.end()
        self.assertEqual(self.writer.written, [[3], [2]])

    def test_a_redaction_of_what_is_being_written(self) -> None:
        """A message that is redacted while its words are written is removed after that."""
        self.indexing.handle(item(1))
        self.clock.advance(COLLECT_SECONDS)
        self.indexing.handle(RemovedEvent(2, 1))
        self.clock.advance(REMOVE_SECONDS)

        self.writer.end()
        self.clock.advance(REMOVE_SECONDS)
        self.writer.end()

        self.assertEqual(self.writer.written, [[1], [2]])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_wait_that_was_cancelled(self) -> None:
        """A caller that no longer waits for what is being written disturbs nobody."""
        self.indexing.handle(item(1))
        gone, other = [Deferred.fromCoroutine(self.indexing.written()) for _ in range(2)]
        gone.addErrback(lambda _: None)
        gone.cancel()

        self.writer.end()

        self.successResultOf(other)

    def test_the_reader_waits_when_too_many_wait(self) -> None:
        """A server that cannot write as fast as users send keeps a bounded number in memory."""
        outcomes = [self.indexing.handle(item(position)) for position in range(2 * MAX_ITEMS)]

        self.assertEqual(set(outcomes[:-1]), {None})
        waiting: Any = outcomes[-1]
        waited = Deferred.fromCoroutine(waiting)
        self.writer.end()
        self.assertNoResult(waited)
        self.writer.end()
        self.successResultOf(waited)
        self.assertEqual(sum(map(len, self.writer.written)), 2 * MAX_ITEMS)

    def test_what_is_not_written_is_for_the_next_start(self) -> None:
        """A stop loses nothing: the position of the reader stays before what is not written."""
        self.indexing.handle(item(1))
        self.clock.advance(COLLECT_SECONDS)
        self.indexing.handle(item(2))
        stopping = Deferred.fromCoroutine(self.indexing.stop())
        self.writer.end(Stopped())

        self.successResultOf(stopping)

        self.assertEqual(self.indexing.first_unsaved(), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.successResultOf(Deferred.fromCoroutine(self.indexing.written()))

    def test_an_unexpected_error_ends_nothing(self) -> None:
        """A defect in one batch does not keep later messages out of the index."""
        self.indexing.handle(item(1))
        self.clock.advance(COLLECT_SECONDS)
        self.writer.end(RuntimeError("a defect"))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

        self.indexing.handle(item(2))
        self.clock.advance(COLLECT_SECONDS)
        self.writer.end()

        self.assertEqual(self.writer.written, [[2]])

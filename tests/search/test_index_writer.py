"""The writer of the index: nothing is lost, nobody waits for it, and it ends in time."""

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from homeserver.concurrency.retry_pauses import Stopped
from homeserver.protocol.search.searchable import SearchableText, SearchKey
from homeserver.search.index_writer import COLLECT_SECONDS, MAX_ITEMS, Indexing
from homeserver.search.indexed_events import IndexedEvent, IndexItem


def item(position: int) -> IndexedEvent:
    """An item at a position."""
    text = SearchableText(SearchKey.BODY, "x")
    return IndexedEvent(position, position, position, text, False, 100)


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
        self.assertEqual(self.indexing.first_unfinished(), 1)
        self.clock.advance(COLLECT_SECONDS)
        self.indexing.handle(item(6))
        self.assertEqual(self.indexing.first_unfinished(), 1)

        self.writer.end()

        self.assertEqual(self.writer.written, [[1, 2, 3, 4, 5]])
        self.assertEqual(self.indexing.first_unfinished(), 6)
        self.clock.advance(COLLECT_SECONDS)
        self.writer.end()
        self.assertIsNone(self.indexing.first_unfinished())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_search_waits_for_what_was_sent_before(self) -> None:
        """A user finds what they have just sent, without waiting for what others send later."""
        self.indexing.handle(item(1))
        self.clock.advance(COLLECT_SECONDS)
        self.indexing.handle(item(2))
        waiting = [Deferred.fromCoroutine(self.indexing.written()) for _ in range(2)]
        self.writer.end()
        self.indexing.handle(item(3))
        self.assertNoResult(waiting[0])

        self.writer.end()

        for each in waiting:
            self.successResultOf(each)
        self.assertEqual(self.writer.written, [[1], [2]])
        self.clock.advance(COLLECT_SECONDS)
        self.writer.end()

    def test_a_search_that_was_cancelled(self) -> None:
        """A client that goes away while its search waits disturbs nobody."""
        self.indexing.handle(item(1))
        gone, other = [Deferred.fromCoroutine(self.indexing.written()) for _ in range(2)]
        gone.addErrback(lambda _: None)
        gone.cancel()

        self.writer.end()

        self.successResultOf(other)

    def test_the_reader_waits_when_too_many_wait(self) -> None:
        """A server that cannot write as fast as users send keeps a bounded number in memory."""
        outcomes = [self.indexing.handle(item(position)) for position in range(MAX_ITEMS)]

        self.assertEqual(set(outcomes[:-1]), {None})
        waiting: Any = outcomes[-1]
        waited = Deferred.fromCoroutine(waiting)
        self.assertNoResult(waited)
        self.writer.end()
        self.successResultOf(waited)

    def test_what_is_not_written_is_for_the_next_start(self) -> None:
        """A stop loses nothing: the position of the reader stays before what is not written."""
        self.indexing.handle(item(1))
        self.clock.advance(COLLECT_SECONDS)
        self.indexing.handle(item(2))
        stopping = Deferred.fromCoroutine(self.indexing.stop())
        self.writer.end(Stopped())

        self.successResultOf(stopping)

        self.assertEqual(self.indexing.first_unfinished(), 1)
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

"""Writes the search index: many rows at a time, and never in the way of a message.

The durable reader gives items one by one. They are collected for some seconds, or until a user
searches, and written together, on a connection of the pool: not with a commit of the log, for which
senders wait. Until an item is written, the position of the reader stays before it, so that a crash
loses nothing.

The reader and the background job write through one object, one batch after the other. So the rows
of an event are never written after those of its redaction, which the index would otherwise outlive.
"""

from collections.abc import Awaitable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger
from twisted.python.failure import Failure

from homeserver.concurrency.backoff import RetrySchedule
from homeserver.concurrency.clock import Clock
from homeserver.concurrency.cooperative import TimeSlice
from homeserver.concurrency.retry_pauses import RetryPauses, Stopped
from homeserver.protocol.errors import Unavailable
from homeserver.protocol.search.words import indexed_tokens
from homeserver.search.indexed_events import IndexedEvent, IndexItem
from homeserver.storage.database.batch import Batch, Row
from homeserver.storage.database.database import Database, DatabaseError, DatabaseUnavailable
from homeserver.storage.search.search_entries import (
    DELETE_ENTRY,
    INSERT_ENTRY,
    words_vector,
)

COLLECT_SECONDS = 2.0  # a search does not wait for their end
MAX_ITEMS = 500  # that wait; beyond it, the reader waits
RETRIES = RetrySchedule((0.1, 0.5, 1.0, 2.0, 5.0))
log = Logger()


class IndexWriter:
    """Writes batches of items, one after the other."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._lock = DeferredLock()
        self._pauses = RetryPauses(clock, RETRIES)

    async def write(self, items: Sequence[IndexItem]) -> None:
        """Write items, however long that takes. Raises `Stopped`.

        An item that can never be written is logged and left out.
        """
        await self._lock.acquire()
        try:
            rows = await self._rows(items)
            if not await self._write_rows(rows):
                for row in rows:
                    await self._write_rows([row])
        finally:
            self._lock.release()

    def stop(self) -> None:
        """End all attempts."""
        self._pauses.stop()

    async def _rows(self, items: Sequence[IndexItem]) -> list[Row]:
        time_slice = TimeSlice(self._clock)
        rows: list[Row] = []
        for item in items:
            try:
                rows.append(_row(item))
            except Exception:
                log.failure("the search index leaves out {item}", item=item.event_nid)
            if time_slice.is_over:
                await time_slice.next()
        return rows

    async def _write_rows(self, rows: Sequence[Row]) -> bool:
        """Write rows, again while the database is unavailable; returns whether it took them."""
        batch = Batch()
        for row in rows:
            batch.add(row)
        failures = 0
        while True:
            self._pauses.check()
            try:
                await self._db.run(batch.write)
            except (Unavailable, DatabaseUnavailable) as error:
                failures += 1
                if failures == 1:
                    log.warn("the search index waits: {error}", error=error)
            except DatabaseError:
                log.failure("{count} rows of the search index are refused", count=len(rows))
                return False
            else:
                return True
            await self._pauses.wait(failures)


class Indexing:
    """The items of one durable reader that wait to be written."""

    def __init__(self, writer: IndexWriter, clock: Clock) -> None:
        self._writer = writer
        self._clock = clock
        self._waiting: list[IndexItem] = []
        self._being_written: Sequence[IndexItem] = ()
        self._timer: Any = None
        self._is_writing = False
        self._listeners: list[Deferred[None]] = []
        self._is_stopped = False

    def handle(self, item: IndexItem) -> Awaitable[None] | None:
        """Take an item; if too many wait, an awaitable that ends when they are written."""
        self._waiting.append(item)
        if len(self._waiting) >= MAX_ITEMS:
            return self.written()
        self._start_timer()
        return None

    def first_unfinished(self) -> int | None:
        """The position of the oldest item that is not written."""
        for items in (self._being_written, self._waiting):
            if items:
                return items[0].position
        return None

    async def written(self) -> None:
        """Write what waits now, and return when it is written."""
        if self._is_writing:
            await self._write_ended()
        if self._waiting and not self._is_writing:
            self._begin()
        if self._is_writing:
            await self._write_ended()

    async def stop(self) -> None:
        """Begin nothing more. What waits is for the next start."""
        self._is_stopped = True
        self._cancel_timer()
        if self._is_writing:
            await self._write_ended()

    async def _write_ended(self) -> None:
        ended: Deferred[None] = Deferred(self._listeners.remove)
        self._listeners.append(ended)
        await ended

    def _begin(self) -> None:
        self._cancel_timer()
        if not self._is_stopped:
            self._being_written, self._waiting = self._waiting, []
            self._is_writing = True
            Deferred.fromCoroutine(self._writer.write(self._being_written)).addBoth(self._ended)

    def _ended(self, outcome: Failure | None) -> None:
        self._is_writing = False
        if isinstance(outcome, Failure) and outcome.check(Stopped):
            self._is_stopped = True
        else:
            self._being_written = ()
            if isinstance(outcome, Failure):
                log.failure("a part of the search index was not written", outcome)
        if self._waiting:
            self._start_timer()
        listeners, self._listeners = self._listeners, []
        for ended in listeners:
            ended.callback(None)

    def _start_timer(self) -> None:
        if self._timer is None and not self._is_stopped:
            self._timer = self._clock.callLater(COLLECT_SECONDS, self._time_is_up)

    def _time_is_up(self) -> None:
        self._timer = None
        if not self._is_writing:
            self._begin()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _row(item: IndexItem) -> Row:
    if not isinstance(item, IndexedEvent):
        return DELETE_ENTRY.row(item.event_nid)
    words = words_vector(indexed_tokens(item.text.text))
    return INSERT_ENTRY.row(
        item.event_nid, item.text.key, item.has_url, item.sent_at, words, item.size
    )

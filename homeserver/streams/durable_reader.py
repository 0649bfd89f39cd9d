"""Durable readers: subscribers of the log whose work survives a crash.

A reader handles *items*: what it selects from the entries of the log, in their order. It has a
name, and a position in the database up to which it has handled everything. After a start it
continues there, so it handles each item at least once: its effects are idempotent, or they are rows
that are written together with its new position.

While a reader keeps up, its items come from the entries that the log publishes, and it reads
nothing. After a start, and whenever more items wait than may, it reads them from the database
instead, a page at a time, until it has caught up. So a slow reader delays nobody and needs no
memory, and there is no difference between a crash and a backlog.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Generic, Protocol

import msgspec
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from homeserver.concurrency.clock import Clock
from homeserver.concurrency.retry_pauses import RetryPauses, Stopped
from homeserver.protocol.errors import Unavailable
from homeserver.storage.database.batch import Row
from homeserver.storage.database.database import Database, DatabaseUnavailable
from homeserver.storage.database.reader_positions import MOVE_READER, reader_position
from homeserver.streams.item_handling import Handle, Item, Outcome, Rows, until_handled
from homeserver.streams.log import Log

MAX_QUEUED = 1_000  # items of one reader that wait in memory
STORE_IDLE_SECONDS = 60.0  # after which the position of a reader without items is stored, too
log = Logger()


class ItemPage(msgspec.Struct, Generic[Item], frozen=True):
    """Items from the database, in the order of the log: all those up to the position `upto`."""

    items: Sequence[Item]
    upto: int


class ItemSource(Protocol[Item]):
    """Where a reader gets its items from: the log's entries, or the database. Both give the same,
    except that the database may give an item that has no effect any more.
    """

    def select(self, entries: Sequence[Any]) -> Iterable[Item]:
        """The items of published entries."""

    async def load(self, after: int, upto: int) -> ItemPage[Item]:
        """A page of bounded size of the items with `after < position <= upto`."""


class ReaderMoved(msgspec.Struct, frozen=True):
    """The log entry for new positions of readers. No subscriber needs it."""

    position: int


class DurableReader(Generic[Item]):
    """One reader; `DurableReaders` makes, starts and stops it.

    `handle` gets one item after the other. If it starts work that ends later, `first_unfinished`
    gives the position of the oldest item whose work has not ended, if there is one. If the result
    of work is only in memory for a while, `first_unsaved` gives the position of the oldest item
    that has to be handled again after a crash.
    """

    def __init__(
        self,
        name: str,
        source: ItemSource[Item],
        handle: Handle[Item],
        log: Log,
        db: Database,
        clock: Clock,
        pauses: RetryPauses,
        first_unfinished: Callable[[], int | None],
        first_unsaved: Callable[[], int | None],
    ) -> None:
        self.name = name
        self._source = source
        self._handle = handle
        self._log = log
        self._db = db
        self._clock = clock
        self._pauses = pauses
        self._first_unfinished = first_unfinished
        self._first_unsaved = first_unsaved
        self._handled = 0  # everything up to this position was passed to `handle`
        self._read = 0  # the entries up to this position are in the queue, or are handled
        self._queue: deque[Item] = deque()
        self._is_queueing = False
        self._is_behind = True
        self._is_started = False
        self._running: Deferred[None] | None = None
        self._stored = 0
        self._stored_at = clock.seconds()
        self._marked = 0  # a position of the log; when it was handled, that of then is marked
        self._marked_at = clock.seconds()
        self._current_at = clock.seconds()  # everything up to this time is handled
        self._has_unstored = False

    @property
    def position(self) -> int:
        """The position up to which the work of all items has ended."""
        unfinished = self._first_unfinished()
        return self._handled if unfinished is None else min(self._handled, unfinished - 1)

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits to be handled, and no work is in progress."""
        return (
            not (self._is_behind or self._queue or self._running)
            and self._first_unfinished() is None
        )

    @property
    def behind_seconds(self) -> float:
        """The time since which the log has entries that are not handled; 0 if it has none.

        It may be too long by two intervals of `DurableReaders`.
        """
        return 0.0 if self.is_idle else self._clock.seconds() - self._current_at

    async def load(self) -> None:
        """Find where to continue. A reader that is new begins with what happens from now on."""
        stored = await self._db.run(reader_position, self.name)
        if stored is None:
            stored = self._log.position
            row = MOVE_READER.row(self.name, stored)
            await self._log.append(ReaderMoved(self._log.next_position()), [row])
        self._handled = self._read = self._stored = stored

    def start(self) -> None:
        """Begin to handle items, with those that were stored since the position."""
        self._is_started = True
        self._run_on()

    async def stop(self) -> None:
        """Begin no further item; returns when the present one is handled.

        The pauses were stopped before.
        """
        self._is_started = self._is_queueing = False
        if self._running is not None:
            await self._running

    def apply(self, entries: Sequence[Any]) -> None:
        """Take the items of a batch (called by the log)."""
        if not self._is_queueing:
            return
        for item in self._source.select(entries):
            if len(self._queue) == MAX_QUEUED:
                self._fall_behind()
                return
            self._queue.append(item)
        self._read = entries[-1].position
        if self._running is None:
            self._drain()

    def unstored_row(self, *, is_due: bool) -> list[Row]:
        """The row with the position, if it has to be stored; if it `is_due`, wherever it moved."""
        now = self._clock.seconds()
        self._mark(now, self.position)
        position = self._saved_position()
        is_due = is_due or self._has_unstored or now - self._stored_at >= STORE_IDLE_SECONDS
        if not is_due or position <= self._stored:
            return []
        return [self._moved(position)]

    def _saved_position(self) -> int:
        """The position after which items are handled again after a crash."""
        unsaved = self._first_unsaved()
        return self.position if unsaved is None else min(self.position, unsaved - 1)

    def _mark(self, now: float, position: int) -> None:
        """Note how current the reader is: on a busy server it is never idle."""
        if self.is_idle:
            self._current_at = now
        elif position >= self._marked:
            self._current_at = self._marked_at
        else:
            return
        self._marked, self._marked_at = self._log.position, now

    def _moved(self, position: int) -> Row:
        self._stored, self._stored_at = position, self._clock.seconds()
        self._has_unstored = (
            self._first_unfinished() is not None or self._first_unsaved() is not None
        )
        return MOVE_READER.row(self.name, position)

    def _fall_behind(self) -> None:
        """Drop the queue: its items are read from the database when it is their turn."""
        self._queue.clear()
        self._is_queueing = False
        self._is_behind = True
        self._run_on()

    def _run_on(self, begun: Awaitable[Rows | None] | None = None) -> None:
        if self._running is None:
            # It may end at once, before there is anything to assign.
            running = self._running = Deferred()
            Deferred.fromCoroutine(self._run(begun)).addBoth(self._ended, running)

    def _ended(self, outcome: Any, running: "Deferred[None]") -> None:
        self._running = None
        if outcome is not None:
            log.failure("the reader {name} failed", outcome, name=self.name)
        running.callback(None)

    def _drain(self) -> None:
        """Handle the queue, without yielding to the reactor as long as no item needs to wait."""
        while self._queue:
            outcome = self._begin(self._queue[0])
            if outcome is not None and isinstance(outcome, Awaitable):
                self._run_on(outcome)
                return
            self._queue.popleft()
            self._after(outcome, self._next_in_queue())
        self._handled = self._read

    def _next_in_queue(self) -> int:
        """The position up to which everything is handled once the first item of the queue is."""
        return self._queue[0].position - 1 if self._queue else self._read

    async def _run(self, begun: Awaitable[Rows | None] | None) -> None:
        """Handle what waits until nothing does; `begun` is the outcome of the first item."""
        try:
            while self._is_started and (self._is_behind or self._queue):
                if self._is_behind:
                    await self._handle_page()
                    continue
                item = self._queue[0]
                rows = await self._until_handled(item, begun)
                begun = None
                if self._queue and self._queue[0] is item:
                    self._queue.popleft()
                    self._after(rows, self._next_in_queue())
        except Stopped:
            return
        if self._is_started:
            self._handled = self._read

    async def _handle_page(self) -> None:
        """Read a page from the database, and handle it."""
        # From here on the entries of the log are queued: if the page is the last one, they follow.
        upto = self._read = self._log.position
        self._queue.clear()
        self._is_queueing = True
        page = await self._load(upto)
        is_last = page.upto >= upto
        if not is_last:
            self._is_queueing = False
            self._queue.clear()
        following = [*(item.position - 1 for item in page.items[1:]), page.upto]
        for item, handled in zip(page.items, following, strict=False):
            self._after(await self._until_handled(item), handled)
        self._handled = page.upto
        # More may have come meanwhile than the queue can hold.
        self._is_behind = not (is_last and self._is_queueing)

    def _begin(self, item: Item) -> Outcome:
        try:
            return self._handle(item)
        except Exception as error:
            return _raise(error)

    async def _until_handled(
        self, item: Item, begun: Awaitable[Rows | None] | None = None
    ) -> Rows | None:
        self._pauses.check()
        return await until_handled(self.name, self._handle, item, self._pauses, begun)

    async def _load(self, upto: int) -> ItemPage[Item]:
        """Load the next page: nothing may be skipped, however often that fails."""
        failures = 0
        while True:
            self._pauses.check()
            try:
                return await self._source.load(self._handled, upto)
            except (Unavailable, DatabaseUnavailable) as error:
                log.warn("the reader {name} waits: {error}", name=self.name, error=error)
            except Exception:
                log.failure("the reader {name} could not read, and tries again", name=self.name)
            failures += 1
            await self._pauses.wait(failures)

    def _after(self, rows: Rows | None, handled: int) -> None:
        """Note that everything up to a position was handled, together with its rows."""
        self._handled = handled
        if rows:
            moved = self._moved(self._saved_position())
            # Not awaited: the log writes what it has accepted, however long that takes.
            appended = self._log.append(ReaderMoved(self._log.next_position()), [*rows, moved])
            appended.addErrback(lambda _: None)
        else:
            self._has_unstored = True


async def _raise(error: Exception) -> Rows | None:
    raise error

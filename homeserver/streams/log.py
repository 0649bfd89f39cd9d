"""The log: every change of this server, in one order, written in group commits.

A writer takes the next position, makes its log entry and its rows, and appends them, all without
yielding to the reactor. While one batch is being committed the next one collects; an idle server
commits at once, a busy one puts hundreds of changes into one commit. When a batch is durable its
entries are published to the subscribers in the order of their positions. So a subscriber never sees
a position before every lower one is durable, and a position, once seen, is never undone.

If the database fails, the batch is written again until it is stored: statements are idempotent, so
a batch whose outcome is unknown does no harm. Writers therefore never have to undo what they hold
in memory: what is not durable is waiting, not lost. While the log is stuck, or too many changes
wait, it refuses new work with `Unavailable`. A batch that the database refuses for any other reason
is a defect that cannot be undone in memory: the log is broken, every waiting caller gets
`LogBroken`, and the process must end.

Positions follow the clock (`positions.py`); each event also has a small number
(`event_numbers.py`). Both are reserved in the database before they are used (`counters.py`). The
log refuses new work while few are left.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred, ensureDeferred, fail
from twisted.logger import Logger
from twisted.python.failure import Failure

from homeserver.concurrency.backoff import RetrySchedule
from homeserver.concurrency.clock import Clock
from homeserver.protocol.errors import Unavailable
from homeserver.storage.database.batch import Batch, Row
from homeserver.storage.database.database import DatabaseUnavailable
from homeserver.streams.counters import Counters
from homeserver.streams.seen import Seen, SeenOfOneOwner

MAX_WAITING = 20_000  # changes that may wait for the database
STALLED_SECONDS = 10.0  # that one batch may take before new work is refused
COMMIT_RETRIES = RetrySchedule((0.05, 0.1, 0.2, 0.5, 1.0))
LOG_AGAIN_SECONDS = 60.0  # between two log entries while the database cannot be written to
log = Logger()


class LogBroken(Unavailable):
    """The database refused a batch permanently: nothing can be written before a restart."""

    def __init__(self) -> None:
        super().__init__("The server cannot store changes any more, and restarts")


class LogEntry(Protocol):
    """A change that happened: an immutable value with its position in the log."""

    @property
    def position(self) -> int: ...


LogSubscriber = Callable[[Sequence[Any]], None]
Transcode = Callable[[Any], Any]
WriteBatch = Callable[[Batch], Any]  # awaitable; raises DatabaseUnavailable where a retry helps


def _ignore(changes: int, seconds: float) -> None:
    pass


class Log:
    """Appends entries, and publishes them to the subscribers once they are durable.

    `position` is the highest position such that it and all lower ones are durable and published;
    `seen` says it for each shard. `broken` fires when the log cannot continue.
    `on_batch(entries, seconds)` is called after each batch. With `transcode` subscribers see what
    it makes of each entry: in tests, an entry with objects of its own, as another process has it.

    `next_position()` gives a fresh position: use it in `append` before anything else of this
    process runs. `next_event_number()` gives a fresh number for an event. They raise `Unavailable`
    where none is left; `check_open` raises before it comes to that.
    """

    def __init__(
        self,
        clock: Clock,
        write: WriteBatch,
        counters: Counters,
        *,
        on_batch: Callable[[int, float], None] = _ignore,
        transcode: Transcode | None = None,
    ) -> None:
        self.position = self._appended = counters.positions.last
        self.seen: Seen = SeenOfOneOwner(self)
        self.next_position: Callable[[], int] = counters.positions.next
        self.next_event_number: Callable[[], int] = counters.numbers.next
        self._positions, self._numbers = counters.positions, counters.numbers
        self._clock = clock
        self._write = write
        self._subscribers: list[LogSubscriber] = []
        self._batch = Batch()
        self._entries: list[LogEntry] = []
        self._waiting: list[Deferred[None]] = []
        self._in_flight: list[Deferred[None]] = []
        self._committing = False
        self._write_began: float | None = None
        self._stuck = False
        self._is_broken = False
        self._idle: list[Deferred[None]] = []
        self.broken: Deferred[None] = Deferred()
        self._on_batch = on_batch
        self._transcode = transcode

    @property
    def last_event_number(self) -> int:
        """The number that `next_event_number` gave last."""
        return self._numbers.last_used

    @property
    def stalled_seconds(self) -> float:
        """The time that the oldest batch has been waiting for the database; 0 if there is none."""
        began = self._write_began
        return 0.0 if began is None else self._clock.seconds() - began

    @property
    def is_writing(self) -> bool:
        """Whether changes become durable: the log is neither broken nor refused nor stalled."""
        return not (self._stuck or self.stalled_seconds > STALLED_SECONDS)

    def subscribe(self, subscriber: LogSubscriber) -> None:
        """Have `subscriber(entries)` called with each committed batch, oldest entry first."""
        self._subscribers.append(subscriber)

    def check_open(self) -> None:
        """Raise `Unavailable` where a change would have to wait too long."""
        if (
            not self.is_writing
            or len(self._waiting) >= MAX_WAITING
            or self._positions.is_low
            or self._numbers.is_low
        ):
            raise Unavailable("The server cannot store changes just now; try again in a moment")

    def unsubscribe(self, subscriber: LogSubscriber) -> None:
        """End a subscription."""
        self._subscribers = [each for each in self._subscribers if each != subscriber]

    def append(self, entry: LogEntry, rows: Sequence[Row] = ()) -> Deferred[None]:
        """Add an entry and its rows; fires when it is durable and published to the subscribers."""
        if self._is_broken:
            return fail(LogBroken())
        assert entry.position > self._appended, "a position is appended before the next is taken"
        self._appended = entry.position
        for row in rows:
            self._batch.add(row)
        self._entries.append(entry)
        done: Deferred[None] = Deferred()
        self._waiting.append(done)
        if not self._committing:
            self._committing = True
            # The changes of one reactor iteration are committed together.
            self._clock.callLater(0, self._start)
        return done

    def written(self) -> Deferred[None]:
        """Fires once everything that has been appended so far is durable."""
        done: Deferred[None] = Deferred()
        if self._is_broken:
            done.errback(LogBroken())
        elif self._entries:
            self._waiting.append(done)
        elif self._committing:
            self._in_flight.append(done)
        else:
            done.callback(None)
        return done

    def flush(self) -> Deferred[None]:
        """Fires once nothing waits to be written."""
        done: Deferred[None] = Deferred()
        if self._is_broken:
            done.errback(LogBroken())
        elif self._committing:
            self._idle.append(done)
        else:
            done.callback(None)
        return done

    def _start(self) -> None:
        ensureDeferred(self._commit()).addErrback(self._break)

    def _break(self, failure: Failure) -> None:
        """Nothing can be written any more: fail all waiting callers."""
        self._stuck = self._is_broken = True
        log.failure("the log is broken, nothing can be written any more", failure)
        waiting = [*self._in_flight, *self._waiting, *self._idle]
        self._in_flight, self._waiting, self._idle, self._entries = [], [], [], []
        self.broken.callback(None)
        for done in waiting:
            if not done.called:
                done.errback(LogBroken())

    async def _commit(self) -> None:
        while self._entries:
            batch, entries = self._batch, self._entries
            waiting = self._in_flight = self._waiting
            self._batch, self._entries, self._waiting = Batch(), [], []
            self._positions.begin_batch()
            started = self._clock.seconds()
            if batch:
                self._write_began = started
                await self._write_until_durable(batch)
                self._write_began = None
            self._on_batch(len(entries), self._clock.seconds() - started)
            self.position = entries[-1].position
            if self._transcode is not None:
                entries = [self._transcode(entry) for entry in entries]
            for subscriber in self._subscribers:
                try:
                    subscriber(entries)
                except Exception:
                    log.failure("a subscriber of the log failed")
            for done in waiting:
                done.callback(None)
        self._committing = False
        idle, self._idle = self._idle, []
        for done in idle:
            done.callback(None)

    async def _write_until_durable(self, batch: Batch) -> None:
        attempt, logged_at = 0, 0.0
        while True:
            try:
                await self._write(batch)
            except DatabaseUnavailable as error:
                self._stuck = True
                if not attempt or self._clock.seconds() - logged_at >= LOG_AGAIN_SECONDS:
                    logged_at = self._clock.seconds()
                    log.warn("cannot write to the database, retrying: {error}", error=error)
            else:
                self._stuck = False
                if attempt:
                    log.info("writing to the database works again")
                return
            pause: Deferred[None] = Deferred()
            attempt += 1
            self._clock.callLater(COMMIT_RETRIES.pause(attempt), pause.callback, None)
            await pause

"""The log: every change of this server, in one order, written in group commits.

A writer takes the next position, makes its fact and rows, and appends them, all in one turn of the
reactor. While one batch is being committed the next one collects; an idle server commits at once, a
busy one puts hundreds of changes into one commit. When a batch is durable its facts are published
to the readers in the order of their positions. So a reader never sees a position before every lower
one is durable, and a position, once seen, is never taken back.

If the database fails, the batch is written again until it is there: statements are idempotent, so a
batch whose outcome is unknown does no harm. Writers therefore never have to undo what they hold in
memory; what does not get through is waiting, not lost. While the log is stuck, or has too much
waiting, it refuses new work with `Unavailable`. A batch that the database refuses for any other
reason is a defect that cannot be undone in memory: the log is broken, and the process must end.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred, ensureDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from homeserver.protocol.errors import Unavailable
from homeserver.storage.batch import Batch, Row
from homeserver.storage.database import DatabaseAway
from homeserver.streams.clock import Clock

MAX_WAITING = 20_000  # changes that may wait for the database
RETRY_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0)
log = Logger()


class Fact(Protocol):
    """Something that happened: an immutable value with its place in the log."""

    @property
    def position(self) -> int: ...


Reader = Callable[[Sequence[Any]], None]
WriteBatch = Callable[[Batch], Any]  # awaitable; raises DatabaseAway where a retry helps


class Log:
    """Appends facts and tells the readers of them once they are durable.

    `position` is the highest position such that it and all lower ones are durable and published.
    `broken` fires when the log cannot go on. `on_batch(changes, seconds)` is told of each batch.
    """

    def __init__(self, clock: Clock, write: WriteBatch, position: int) -> None:
        self.position = position
        self._clock = clock
        self._write = write
        self._last = position
        self._readers: list[Reader] = []
        self._batch = Batch()
        self._facts: list[Fact] = []
        self._waiting: list[Deferred[None]] = []
        self._in_flight: list[Deferred[None]] = []
        self._committing = False
        self._stuck = False
        self._idle: list[Deferred[None]] = []
        self.broken: Deferred[None] = Deferred()
        self.on_batch: Callable[[int, float], None] | None = None

    def subscribe(self, reader: Reader) -> None:
        """Have `reader(facts)` called with the facts of each committed batch, oldest first."""
        self._readers.append(reader)

    def check_open(self) -> None:
        """Raise `Unavailable` where a change would have to wait too long."""
        if self._stuck or len(self._waiting) >= MAX_WAITING:
            raise Unavailable("The server cannot store changes just now; try again in a moment")

    def next_position(self) -> int:
        """A fresh position. Use it in `append` before anything else of this process runs."""
        self._last += 1
        return self._last

    def append(self, fact: Fact, rows: Sequence[Row] = ()) -> Deferred[None]:
        """Add a fact and its rows; fires when it is durable and readers know of it."""
        for row in rows:
            self._batch.add(row)
        self._facts.append(fact)
        done: Deferred[None] = Deferred()
        self._waiting.append(done)
        if not self._committing:
            self._committing = True
            # The changes of one turn of the reactor go together.
            self._clock.callLater(0, self._start)
        return done

    def written(self) -> Deferred[None]:
        """Fires once everything that has been appended so far is durable."""
        done: Deferred[None] = Deferred()
        if self._facts:
            self._waiting.append(done)
        elif self._committing:
            self._in_flight.append(done)
        else:
            done.callback(None)
        return done

    def settled(self) -> Deferred[None]:
        """Fires once nothing waits to be written."""
        done: Deferred[None] = Deferred()
        if self._committing:
            self._idle.append(done)
        else:
            done.callback(None)
        return done

    def _start(self) -> None:
        ensureDeferred(self._commit()).addErrback(self._break)

    def _break(self, failure: Failure) -> None:
        self._stuck = True
        log.failure("the log is broken, nothing can be written any more", failure)
        self.broken.callback(None)

    async def _commit(self) -> None:
        while self._facts:
            batch, facts = self._batch, self._facts
            waiting = self._in_flight = self._waiting
            self._batch, self._facts, self._waiting = Batch(), [], []
            started = self._clock.seconds()
            if batch:
                await self._write_until_durable(batch)
            if self.on_batch is not None:
                self.on_batch(len(facts), self._clock.seconds() - started)
            self.position = facts[-1].position
            for reader in self._readers:
                try:
                    reader(facts)
                except Exception:
                    log.failure("a reader of the log failed")
            for done in waiting:
                done.callback(None)
        self._committing = False
        idle, self._idle = self._idle, []
        for done in idle:
            done.callback(None)

    async def _write_until_durable(self, batch: Batch) -> None:
        attempt = 0
        while True:
            try:
                await self._write(batch)
                self._stuck = False
                return
            except DatabaseAway as error:
                self._stuck = True
                log.warn("cannot write to the database, trying again: {error}", error=error)
            pause: Deferred[None] = Deferred()
            delay = RETRY_SECONDS[min(attempt, len(RETRY_SECONDS) - 1)]
            self._clock.callLater(delay, pause.callback, None)
            await pause
            attempt += 1

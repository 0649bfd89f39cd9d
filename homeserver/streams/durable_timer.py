"""A durable timer: does what is due at times that are stored in a table.

The table has a column with the time in ms since the epoch, and an index on it. However many rows
wait, there is one timer in memory, for the earliest. What became due while the server was stopped
is done after its start.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from homeserver.concurrency.backoff import RetrySchedule
from homeserver.concurrency.clock import Clock, DelayedCall, now_ms
from homeserver.protocol.errors import Unavailable
from homeserver.storage.database.database import Connection, Database, DatabaseUnavailable

MAX_SLEEP_SECONDS = 60.0  # after which the wall clock, which may have been set, is read again
_NEVER = 2**63  # ms
RETRIES = RetrySchedule((0.5, 1.0, 2.0, 5.0, 30.0))
log = Logger()


class DurableTimer:
    """One table with due times.

    `earliest(db)` returns the earliest time in the table. `work(now_ms)` does what is due, or a
    part of it, and sees to it that it is not due any more; it is called again as long as something
    is. A failure is logged and repeated. `start` it, call `notice` for each row that is added, and
    `stop` it before the database closes.
    """

    def __init__(
        self,
        db: Database,
        clock: Clock,
        earliest: Callable[[Connection], Awaitable[int | None]],
        work: Callable[[int], Awaitable[None]],
        *,
        name: str,
    ) -> None:
        self._db = db
        self._clock = clock
        self._earliest = earliest
        self._work = work
        self._name = name
        self._is_started = False
        self._timer: DelayedCall | None = None
        self._due = 0  # of the timer; the earliest time that is known
        self._running: Deferred[None] | None = None
        self._failures = 0

    def start(self) -> None:
        """Do what became due before, and wait for the rest."""
        self._is_started = True
        self._fire()

    async def stop(self) -> None:
        """Do nothing more; returns when what is being done has ended."""
        self._is_started = False
        self._cancel()
        if self._running is not None:
            await self._running

    def notice(self, due_ms: int) -> None:
        """Wake up at this time at the latest: a row with it is stored."""
        if not self._is_started:
            return
        if self._running is not None:
            self._due = min(self._due, due_ms)
        elif self._timer is None or due_ms < self._due:
            self._sleep_until(due_ms)

    def _sleep_until(self, due_ms: int) -> None:
        self._cancel()
        self._due = due_ms
        seconds = (due_ms - now_ms(self._clock)) / 1000
        self._sleep(min(max(seconds, 0.0), MAX_SLEEP_SECONDS))

    def _sleep(self, seconds: float) -> None:
        self._timer = self._clock.callLater(seconds, self._fire)

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        self._timer = None
        if now_ms(self._clock) < self._due:
            self._sleep_until(self._due)
            return
        self._due = _NEVER
        running = self._running = Deferred()
        Deferred.fromCoroutine(self._run()).addBoth(self._ended, running)

    async def _run(self) -> None:
        """Do all that is due; at the end `_due` is the earliest time of the rest."""
        while self._is_started:
            earliest = await self._db.run(self._earliest)
            now = now_ms(self._clock)
            if earliest is None or earliest > now:
                # A row that was noticed meanwhile may not have been visible yet.
                self._due = min(self._due, _NEVER if earliest is None else earliest)
                return
            await self._work(now)

    def _ended(self, outcome: Any, running: "Deferred[None]") -> None:
        self._running = None
        if outcome is not None:
            self._failures += 1
            self._due = 0
            if not outcome.check(Unavailable, DatabaseUnavailable):
                log.failure("{name} failed, and is repeated", outcome, name=self._name)
        else:
            self._failures = 0
        if self._is_started and self._failures:
            self._sleep(RETRIES.pause(self._failures))
        elif self._is_started and self._due < _NEVER:
            self._sleep_until(self._due)
        running.callback(None)

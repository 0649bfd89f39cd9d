"""A check that many callers share: run once, bounded in time, cached for a moment."""

from collections.abc import Awaitable, Callable

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from homeserver.concurrency.clock import Clock

log = Logger()


class SharedCheck:
    """A check that runs once at a time.

    `ask` returns the result; an exception means false. A result counts for `fresh_seconds`. Callers
    wait until the running check is `timeout` seconds old, at most, and get false after that; no
    other check begins until it ends.
    """

    def __init__(
        self,
        clock: Clock,
        ask: Callable[[], Awaitable[bool]],
        *,
        name: str,
        timeout: float,
        fresh_seconds: float = 1.0,
    ) -> None:
        self._clock = clock
        self._ask = ask
        self._name = name
        self._timeout = timeout
        self._fresh_seconds = fresh_seconds
        self._result: bool | None = None
        self._checked_at = 0.0
        self._started_at: float | None = None  # of the running check
        self._waiters: set[Deferred[bool]] = set()

    async def passes(self) -> bool:
        """Whether the check passes."""
        now = self._clock.seconds()
        if self._started_at is None:
            if self._result is not None and now - self._checked_at < self._fresh_seconds:
                return self._result
            self._started_at = now
            running = Deferred.fromCoroutine(self._run())
            running.addBoth(self._ended)
            if running.called:
                return bool(self._result)
        left = self._started_at + self._timeout - now
        if left <= 0:
            return False
        return await self._wait(left)

    async def _run(self) -> bool:
        return await self._ask()

    async def _wait(self, seconds: float) -> bool:
        waiter: Deferred[bool] = Deferred()
        self._waiters.add(waiter)
        alarm = self._clock.callLater(seconds, waiter.callback, False)
        try:
            return await waiter
        finally:
            self._waiters.discard(waiter)
            if alarm.active():
                alarm.cancel()

    def _ended(self, outcome: bool | Failure) -> None:
        self._started_at = None
        if isinstance(outcome, Failure):
            if self._result is not False:
                log.warn(
                    "{check} failed: {reason}",
                    check=self._name,
                    reason=outcome.getErrorMessage(),
                )
            outcome = False
        self._result, self._checked_at = outcome, self._clock.seconds()
        waiters, self._waiters = self._waiters, set()
        for waiter in waiters:
            if not waiter.called:
                waiter.callback(outcome)

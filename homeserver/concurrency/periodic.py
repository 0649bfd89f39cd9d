"""Periodic tasks: work that is done every few seconds, however often it fails.

The end of a task that stopped at its first error would be noticed much later, by its missing
effects. So a failure is logged, and the next run follows nevertheless.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from homeserver.concurrency.clock import Clock, DelayedCall, wall_seconds

LOG_AGAIN_SECONDS = 600.0  # between two log lines about a task that keeps failing

Work = Callable[[], Awaitable[Any] | None]

log = Logger()


class PeriodicTask:
    """A task that calls `work`, a function or one that returns an awaitable, every `seconds`
    seconds.

    Runs are due on a fixed grid, whose origin is the moment of `start`. If a run takes longer than
    the interval, the task skips the runs that it missed: two never overlap. A run that fails is
    logged under `name`: the first failure with its traceback, then one every `LOG_AGAIN_SECONDS`,
    and the first success after failures.
    """

    def __init__(self, clock: Clock, seconds: float, work: Work, *, name: str) -> None:
        if seconds <= 0:
            raise ValueError("a periodic task needs an interval above zero")
        self.is_started = False
        self.name = name
        self.failures = 0  # in a row
        self.last_run_at: float | None = None  # when the last run ended: seconds since the epoch
        self._clock = clock
        self._seconds = seconds
        self._work = work
        self._origin = 0.0
        self._tick = 0  # the latest point of the grid at which a run was due
        self._timer: DelayedCall | None = None
        self._is_running = False
        self._ended: list[Deferred[None]] = []  # for callers that wait for the present run
        self._logged_at = 0.0

    @property
    def next_run_at(self) -> float | None:
        """When the next run is due, in seconds since the epoch; `None` if none is."""
        if self._timer is None:
            return None
        due = self._origin + self._tick * self._seconds
        return wall_seconds(self._clock) + max(0.0, due - self._clock.seconds())

    def start(self, *, now: bool = False) -> None:
        """Begin, with a run at once or after one interval; a second call does nothing."""
        if self.is_started:
            return
        self.is_started = True
        self._origin, self._tick = self._clock.seconds(), 0
        if self._is_running:
            return  # a run from before a stop continues with the new grid
        if now:
            self._run()
        else:
            self._schedule()

    def stop(self) -> Deferred[None]:
        """Begin no further run; fires when the present one, if there is one, has ended.

        A run is not cancelled. A long one should check `is_started` to see whether to continue.
        """
        self.is_started = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        ended: Deferred[None] = Deferred()
        if self._is_running:
            self._ended.append(ended)
        else:
            ended.callback(None)
        return ended

    def _schedule(self) -> None:
        passed = self._clock.seconds() - self._origin
        # A timer may fire a rounding error too early: the same point of the grid must not be due
        # twice.
        self._tick = max(self._tick, int(passed // self._seconds)) + 1
        delay = max(0.0, self._tick * self._seconds - passed)
        self._timer = self._clock.callLater(delay, self._run)

    def _run(self) -> None:
        self._timer = None
        self._is_running = True
        Deferred.fromCoroutine(self._work_once()).addBoth(self._run_ended)

    async def _work_once(self) -> None:
        result = self._work()
        if isinstance(result, Awaitable):
            await result

    def _run_ended(self, outcome: Failure | None) -> None:
        self._is_running = False
        self.last_run_at = wall_seconds(self._clock)
        try:
            self._log_outcome(outcome)
        finally:
            ended, self._ended = self._ended, []
            if self.is_started:
                self._schedule()
            for waiting in ended:
                if not waiting.called:
                    waiting.callback(None)

    def _log_outcome(self, outcome: Failure | None) -> None:
        if not isinstance(outcome, Failure):
            if self.failures:
                log.info(
                    "{job} works again, after {count} failures",
                    job=self.name,
                    count=self.failures,
                )
            self.failures = 0
            return
        self.failures += 1
        now = self._clock.seconds()
        if self.failures == 1:
            log.failure("{job} failed; retrying", outcome, job=self.name)
        elif now - self._logged_at >= LOG_AGAIN_SECONDS:
            log.error(
                "{job} has failed {count} times in a row, last because of: {reason}",
                job=self.name,
                count=self.failures,
                reason=outcome.getErrorMessage(),
            )
        else:
            return
        self._logged_at = now

"""The pauses between attempts at something that has to succeed, which end when the server stops."""

from twisted.internet.defer import Deferred

from homeserver.concurrency.backoff import RetrySchedule
from homeserver.concurrency.clock import Clock


class Stopped(Exception):
    """No further attempt is made: the server is stopping."""


class RetryPauses:
    """Pauses of any number of callers. `stop` ends them all."""

    def __init__(self, clock: Clock, schedule: RetrySchedule) -> None:
        self._clock = clock
        self._schedule = schedule
        self._is_stopped = False
        self._waiting: set[Deferred[None]] = set()

    async def wait(self, failures: int) -> None:
        """Wait after so many failures in a row. Raises `Stopped`."""
        await self.wait_seconds(self._schedule.pause(failures))

    async def wait_seconds(self, seconds: float) -> None:
        """Wait for a time of the caller's own. Raises `Stopped`."""
        self.check()
        waiting: Deferred[None] = Deferred()
        self._waiting.add(waiting)
        timer = self._clock.callLater(seconds, waiting.callback, None)
        try:
            await waiting
        finally:
            self._waiting.discard(waiting)
            if timer.active():
                timer.cancel()
        self.check()

    def check(self) -> None:
        """Raise `Stopped` after `stop`."""
        if self._is_stopped:
            raise Stopped

    def stop(self) -> None:
        """End all pauses, and allow no further one."""
        self._is_stopped = True
        for waiting in list(self._waiting):
            waiting.callback(None)

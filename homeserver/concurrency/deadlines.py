"""Deadlines of many keys on one timer.

A key has at most one deadline. A postponed deadline is not moved in the heap: it is due at its
first time, and the callback then sets the next one. So a client that polls, and thereby postpones
its user's deadline all the time, costs next to nothing.
"""

import heapq
from collections.abc import Callable

from twisted.logger import Logger

from homeserver.concurrency.clock import Clock, DelayedCall

TICK_SECONDS = 1.0  # deadlines within this time are due together
log = Logger()


class Deadlines:
    """A scheduler that calls `due(key)` once for each deadline, at its time or a tick later."""

    def __init__(self, clock: Clock, due: Callable[[str], None]) -> None:
        self._clock = clock
        self._call = due
        self._times: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []
        self._timer: DelayedCall | None = None
        self._timer_at = 0.0
        self._is_stopped = False

    def __len__(self) -> int:
        return len(self._times)

    def set(self, key: str, at: float) -> None:
        """Make the key due at a time (seconds since the epoch), or earlier if that was set."""
        known = self._times.get(key)
        if (known is None or at < known) and not self._is_stopped:
            self._times[key] = at
            heapq.heappush(self._heap, (at, key))
            self._wind(at)

    def comes_before(self, key: str, at: float) -> bool:
        """Whether the key is due at or before a time already."""
        known = self._times.get(key)
        return known is not None and known <= at

    def stop(self) -> None:
        """Forget all deadlines, and those that are set from now on."""
        self._is_stopped = True
        self._times.clear()
        self._heap.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wind(self, at: float) -> None:
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._clock.callLater(max(0.0, at - self._clock.seconds()), self._tick)

    def _tick(self) -> None:
        self._timer = None
        now = self._clock.seconds()
        due = []
        while self._heap and self._heap[0][0] <= now:
            at, key = heapq.heappop(self._heap)
            # An entry that an earlier one of its key replaced is ignored.
            if self._times.get(key) == at:
                del self._times[key]
                due.append(key)
        for key in due:
            try:
                self._call(key)
            except Exception:
                log.failure("the callback for the deadline of {key} failed", key=key)
        if self._heap:
            self._wind(max(self._heap[0][0], now + TICK_SECONDS))

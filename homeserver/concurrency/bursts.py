"""Bursts: of many similar actions the first are done at once, and the others together.

A commit, or a delivery to many, costs much the same for one change and for hundreds. So what comes
in bursts waits for a moment, and is then done at the same time.
"""

from collections import Counter
from collections.abc import Hashable

from twisted.internet.defer import Deferred

from homeserver.concurrency.clock import Clock
from homeserver.concurrency.cooperative import TimeSlice

MAX_WAITING = 5_000  # actions; further ones do not wait


class Bursts:
    """Says when each action is to be done.

    Of the actions of one key within `seconds`, the first `immediate` ones do not wait. The others
    wait for the end of this time, together with those of all other keys. As long as more than
    `immediate` come each time, all of them wait.
    """

    def __init__(self, clock: Clock, *, immediate: int, seconds: float) -> None:
        self._clock = clock
        self._immediate = immediate
        self._seconds = seconds
        self._ends = 0.0
        self._counts: Counter[Hashable] = Counter()
        self._busy: frozenset[Hashable] = frozenset()  # keys of which too many came just before
        self._waiting: list[Deferred[None]] = []

    def next(self, key: Hashable) -> Deferred[None] | None:
        """Count one action: it is to be done when the result fires, at once for `None`."""
        now = self._clock.seconds()
        if now >= self._ends:
            self._begin(now)
        self._counts[key] += 1
        is_early = self._counts[key] <= self._immediate and key not in self._busy
        if is_early or len(self._waiting) >= MAX_WAITING:
            return None
        if not self._waiting:
            self._clock.callLater(self._ends - now, self._end)
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        return waiting

    def _begin(self, now: float) -> None:
        is_next = now < self._ends + self._seconds
        busy = (key for key, count in self._counts.items() if is_next and count > self._immediate)
        self._busy = frozenset(busy)
        self._counts.clear()
        self._ends = now + self._seconds

    def _end(self) -> None:
        waiting, self._waiting = self._waiting, []
        waiting.reverse()
        self._release(waiting)

    def _release(self, waiting: list[Deferred[None]]) -> None:
        """Let actions begin, the first ones last in the list, for a few milliseconds at a time."""
        time_slice = TimeSlice(self._clock)
        while waiting:
            if time_slice.is_over:
                self._clock.callLater(0, self._release, waiting)
                return
            action = waiting.pop()
            if not action.called:  # as it is if it was cancelled
                action.callback(None)

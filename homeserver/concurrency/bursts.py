"""Bursts: of many similar actions the first are done at once, and the others together.

A commit, or a delivery to many, costs much the same for one change and for hundreds. So what comes
in bursts waits for a moment, and is then done at the same time.
"""

from collections import Counter
from collections.abc import Callable, Coroutine, Hashable, Iterable
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from homeserver.concurrency.clock import Clock
from homeserver.concurrency.cooperative import TimeSlice

MAX_WAITING = 5_000  # actions; further ones do not wait
log = Logger()

Action = TypeVar("Action")
Outcome = TypeVar("Outcome")


class Bursts(Generic[Action]):
    """Says which actions are to wait, and has these done together.

    Of the actions of one key within `seconds`, the first `immediate` ones do not wait. The others
    wait for the end of this time, when `do_all` gets them, in their order, together with those of
    all other keys. As long as more than `immediate` come each time, all of them wait.
    """

    def __init__(
        self,
        clock: Clock,
        do_all: Callable[[list[Action]], Coroutine[Deferred[Any], Any, None]],
        *,
        immediate: int,
        seconds: float,
    ) -> None:
        self._clock = clock
        self._do_all = do_all
        self._immediate = immediate
        self._seconds = seconds
        self._ends = 0.0
        self._counts: Counter[Hashable] = Counter()
        self._busy: frozenset[Hashable] = frozenset()  # keys of which too many came just before
        self._actions: list[Action] = []
        self._waiting = 0  # actions that were added and are not done yet

    def wait(self, key: Hashable) -> bool:
        """Count one action: the caller is to `add` it now if true, else to do it."""
        now = self._clock.seconds()
        if now >= self._ends:
            self._begin(now)
        self._counts[key] += 1
        is_early = self._counts[key] <= self._immediate and key not in self._busy
        return not is_early and self._waiting < MAX_WAITING

    def add(self, action: Action) -> None:
        """Have an action done at the end of the burst."""
        if not self._actions:
            self._clock.callLater(max(0.0, self._ends - self._clock.seconds()), self._end)
        self._actions.append(action)
        self._waiting += 1

    def _begin(self, now: float) -> None:
        is_next = now < self._ends + self._seconds
        busy = (key for key, count in self._counts.items() if is_next and count > self._immediate)
        self._busy = frozenset(busy)
        self._counts.clear()
        self._ends = now + self._seconds

    def _end(self) -> None:
        actions, self._actions = self._actions, []

        def ended(_: object) -> None:
            self._waiting -= len(actions)

        Deferred.fromCoroutine(self._do_all(actions)).addErrback(
            lambda failure: log.failure("the actions of a burst failed", failure)
        ).addBoth(ended)


async def fire_all(clock: Clock, waiting: Iterable[tuple[Deferred[Outcome], Outcome]]) -> None:
    """Fire Deferreds with their outcomes, but those that were cancelled.

    It does so for a few milliseconds at a time, since each of them lets something begin.
    """
    time_slice = TimeSlice(clock)
    for each, outcome in waiting:
        if time_slice.is_over:
            await time_slice.next()
        if not each.called:
            each.callback(outcome)

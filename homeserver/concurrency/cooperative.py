"""Time slices: long work yields to the reactor every few milliseconds.

The reactor does one thing at a time. Large results, such as the members of a room of ten thousand,
are therefore built in parts, between which the reactor serves other requests: a message takes three
or four reactor iterations from the request to the response.
"""

from collections.abc import Callable, Collection, Generator, Iterable
from typing import TypeVar

from twisted.internet.defer import Deferred

from homeserver.concurrency.clock import Clock
from homeserver.concurrency.thread_pools import ThreadPool

SLICE_SECONDS = 0.004
CHECK_EVERY_ITEMS = 32  # items between two checks of the clock
RUN_IN_THREAD_ABOVE = 500  # items that are too many for the reactor thread

T = TypeVar("T")
R = TypeVar("R")


class TimeSlice:
    """A time slice from its construction on. Between parts: `if time_slice.is_over: await …`."""

    __slots__ = ("_clock", "_end")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._end = clock.seconds() + SLICE_SECONDS

    @property
    def is_over(self) -> bool:
        """Whether it is time to yield to the reactor."""
        return self._clock.seconds() >= self._end

    async def next(self) -> None:
        """Yield to the reactor, and begin another slice."""
        done: Deferred[None] = Deferred()
        call = self._clock.callLater(0, done.callback, None)
        try:
            await done
        finally:
            if call.active():
                call.cancel()
        self._end = self._clock.seconds() + SLICE_SECONDS


async def run_maybe_in_thread(
    threads: ThreadPool, rule: Callable[[Collection[T]], R], items: Collection[T]
) -> R:
    """Apply a pure function to some items: in a thread, if there are many."""
    if len(items) > RUN_IN_THREAD_ABOVE:
        return await threads.run(rule, items)
    return rule(items)


async def build_cooperatively(
    clock: Clock, items: Iterable[T], every: int = CHECK_EVERY_ITEMS
) -> list[T]:
    """Build the items of a lazy iterable, a few at a time.

    The clock is read after `every` so many items: 1 where a user can make one take milliseconds.
    """
    time_slice = TimeSlice(clock)
    found: list[T] = []
    for number, item in enumerate(items, 1):
        found.append(item)
        if number % every == 0 and time_slice.is_over:
            await time_slice.next()
    return found


async def build_present_cooperatively(clock: Clock, items: Iterable[T | None]) -> list[T]:
    """The same without the items that are `None`, of which there may be many in a row."""
    return [item for item in await build_cooperatively(clock, items) if item is not None]


async def run_cooperatively(clock: Clock, parts: Generator[None, None, R]) -> R:
    """Run a generator that yields after each small part of its work, and return its result."""
    time_slice = TimeSlice(clock)
    while True:
        try:
            next(parts)
        except StopIteration as stop:
            result: R = stop.value
            return result
        if time_slice.is_over:
            await time_slice.next()

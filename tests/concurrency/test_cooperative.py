"""Time slices: long work that yields to other work, on a clock that the test moves."""

from collections.abc import Iterator

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from homeserver.concurrency.cooperative import (
    CHECK_EVERY_ITEMS,
    SLICE_SECONDS,
    TimeSlice,
    build_cooperatively,
)


def slow_items(clock: Clock, happened: list[object], count: int) -> Iterator[int]:
    """Items that take a quarter of a slice each; no other work runs while one is made."""
    for number in range(count):
        clock.rightNow += SLICE_SECONDS / 4
        happened.append(number)
        yield number


def test_others_are_served_while_much_is_made() -> None:
    """A message does not wait for another request's list of ten thousand members."""
    clock = Clock()
    happened: list[object] = []
    made: list[int] = []
    clock.callLater(0, happened.append, "a message")

    work = build_cooperatively(clock, slow_items(clock, happened, 3 * CHECK_EVERY_ITEMS))
    Deferred.fromCoroutine(work).addCallback(made.extend)
    assert not made
    clock.pump([0] * 4)

    assert made == list(range(3 * CHECK_EVERY_ITEMS))
    assert happened.index("a message") == CHECK_EVERY_ITEMS


def test_what_is_quickly_made_does_not_wait() -> None:
    """An ordinary response is sent without yielding to the reactor."""
    made: list[int] = []

    Deferred.fromCoroutine(build_cooperatively(Clock(), iter(range(1000)))).addCallback(made.extend)

    assert len(made) == 1000


def test_cancelled_work_leaves_no_timer() -> None:
    """A client that disconnects in the middle leaves no work behind."""
    clock = Clock()
    waiting = Deferred.fromCoroutine(TimeSlice(clock).next())

    waiting.addErrback(lambda _: None)
    waiting.cancel()

    assert clock.getDelayedCalls() == []

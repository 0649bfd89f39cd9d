"""Waiting with a bound."""

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from homeserver.concurrency.deferreds import TimedOut, with_timeout


def outcome_of(work: Deferred[str], clock: Clock) -> list[object]:
    """Where the result of the wait is put."""
    found: list[object] = []
    Deferred.fromCoroutine(with_timeout(work, 5.0, clock)).addBoth(found.append)
    return found


def test_what_is_done_in_time_is_given() -> None:
    """The bound is for what hangs alone."""
    clock, work = Clock(), Deferred[str]()
    found = outcome_of(work, clock)

    work.callback("done")

    assert found == ["done"]
    assert clock.getDelayedCalls() == []


def test_what_hangs_is_given_up() -> None:
    """It is cancelled, too, so that it ends if it can."""
    clock, cancelled = Clock(), []
    work: Deferred[str] = Deferred(cancelled.append)
    found = outcome_of(work, clock)

    clock.advance(5)

    assert cancelled == [work]
    assert isinstance(found[0], Failure)
    assert found[0].check(TimedOut)


def test_what_takes_no_notice_of_that_is_given_up_all_the_same() -> None:
    """No part of the server can keep the rest from ending."""

    async def stubborn() -> None:
        while True:
            try:
                await Deferred()
            except CancelledError:
                continue

    clock = Clock()
    found = outcome_of(Deferred.fromCoroutine(stubborn()), clock)  # type: ignore[arg-type]

    clock.advance(5)

    assert isinstance(found[0], Failure)
    assert found[0].check(TimedOut)


def test_failure_is_passed_on() -> None:
    """What went wrong is told as it is."""
    work: Deferred[str] = Deferred()
    found = outcome_of(work, Clock())

    work.errback(Failure(ValueError("no")))

    assert isinstance(found[0], Failure)
    with pytest.raises(ValueError, match="no"):
        found[0].raiseException()

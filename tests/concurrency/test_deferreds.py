"""Waiting with a bound."""

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from homeserver.concurrency.deferreds import TimedOut, with_timeout


def outcome_of(work: Deferred[str], clock: Clock) -> list[object]:
    """A list that receives the result of the wait."""
    found: list[object] = []
    Deferred.fromCoroutine(with_timeout(work, 5.0, clock)).addBoth(found.append)
    return found


def test_result_in_time_is_returned() -> None:
    """The timeout affects only work that hangs."""
    clock, work = Clock(), Deferred[str]()
    found = outcome_of(work, clock)

    work.callback("done")

    assert found == ["done"]
    assert clock.getDelayedCalls() == []


def test_work_that_hangs_is_given_up() -> None:
    """It is cancelled, too, so that it ends if it can."""
    clock, cancelled = Clock(), []
    work: Deferred[str] = Deferred(cancelled.append)
    found = outcome_of(work, clock)

    clock.advance(5)

    assert cancelled == [work]
    assert isinstance(found[0], Failure)
    assert found[0].check(TimedOut)


def test_work_that_ignores_cancellation_is_given_up_all_the_same() -> None:
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
    """The error is the original one."""
    work: Deferred[str] = Deferred()
    found = outcome_of(work, Clock())

    work.errback(Failure(ValueError("no")))

    assert isinstance(found[0], Failure)
    with pytest.raises(ValueError, match="no"):
        found[0].raiseException()

"""Waiting with a bound, and running without waiting."""

import pytest
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from homeserver.concurrency.deferreds import TimedOut, run_until_waiting, with_timeout


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


async def sum_of(*numbers: Deferred[int]) -> int:
    """The sum of numbers that may come later, and of 100 for each that does not."""
    total = 0
    for number in numbers:
        try:
            total += await number
        except (KeyError, CancelledError):
            total += 100
    return total


def failed() -> Deferred[int]:
    later: Deferred[int] = Deferred()
    later.errback(KeyError("no number"))
    return later


def test_coroutine_that_need_not_wait_makes_no_deferred() -> None:
    """Most requests are of this kind."""
    now: Deferred[int] = Deferred()
    now.callback(1)

    assert run_until_waiting(sum_of()) == 0
    assert run_until_waiting(sum_of(now, failed())) == 101
    with pytest.raises(KeyError):
        run_until_waiting(_raising(None))


def test_coroutine_that_waits_continues_with_each_result_and_error() -> None:
    """However often it waits."""
    waits: list[Deferred[int]] = [Deferred(), Deferred(), Deferred()]
    running = run_until_waiting(sum_of(waits[0], failed(), waits[1], waits[2]))
    assert isinstance(running, Deferred)
    found: list[object] = []
    running.addBoth(found.append)

    waits[0].callback(1)
    waits[1].errback(KeyError("no number"))
    assert found == []
    waits[2].callback(2)

    assert found == [203]


def test_error_after_a_wait_is_that_of_the_deferred() -> None:
    """All who wait for it get it."""
    wait: Deferred[None] = Deferred()
    running = run_until_waiting(_raising(wait))
    assert isinstance(running, Deferred)
    found: list[Failure] = []
    running.addErrback(found.append)

    wait.callback(None)

    assert found[0].check(KeyError)


def test_waiting_coroutine_can_be_cancelled() -> None:
    """What it waits for is cancelled, and it may go on."""
    cancelled: list[object] = []
    wait: Deferred[int] = Deferred(cancelled.append)
    running = run_until_waiting(sum_of(wait))
    assert isinstance(running, Deferred)

    running.cancel()

    assert cancelled == [wait]
    assert running.result == 100


async def _raising(wait: Deferred[None] | None) -> None:
    if wait is not None:
        await wait
    raise KeyError("nothing")

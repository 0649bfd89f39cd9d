"""Waiting for the same thing as somebody else, and for several things."""

from collections.abc import Awaitable, Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, DeferredList, ensureDeferred
from twisted.python.failure import Failure

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")


class TimedOut(Exception):
    """Something was not done in the time that it had."""


def wait_for_completion(running: Deferred[Any]) -> Deferred[None]:
    """A Deferred of the caller's own that fires, without a value, when `running` does.

    Cancelling it leaves `running`, and all others who wait for it, alone.
    """
    done: Deferred[None] = Deferred()

    def pass_on(result: Any) -> Any:
        if not done.called:
            done.callback(None)
        return result

    running.addBoth(pass_on)
    return done


async def with_timeout(work: Awaitable[A], seconds: float, clock: Any) -> A:
    """What an awaitable gives, if it does within `seconds`; else it is cancelled.

    Raises `TimedOut` then, even where the work takes no notice of being cancelled.
    """
    running: Deferred[A] = ensureDeferred(work)  # type: ignore[arg-type]
    done: Deferred[A] = Deferred()

    def pass_on(outcome: A | Failure) -> None:
        if not done.called:
            done.callback(outcome)

    def give_up() -> None:
        if not done.called:
            done.errback(TimedOut(f"not done within {seconds:g} s"))
            running.cancel()

    running.addBoth(pass_on)
    alarm = clock.callLater(seconds, give_up)
    try:
        return await done
    finally:
        if alarm.active():
            alarm.cancel()


async def gather4(
    first: Coroutine[Any, Any, A],
    second: Coroutine[Any, Any, B],
    third: Coroutine[Any, Any, C],
    fourth: Coroutine[Any, Any, D],
) -> tuple[A, B, C, D]:
    """What four coroutines give that wait at the same time.

    Raises what the first of those raises that fail, once all have ended.
    """
    running: list[Deferred[Any]] = [
        Deferred.fromCoroutine(each) for each in (first, second, third, fourth)
    ]
    results: list[Any] = []
    for succeeded, result in await DeferredList(running, consumeErrors=True):
        if not succeeded:
            result.raiseException()
        results.append(result)
    return results[0], results[1], results[2], results[3]

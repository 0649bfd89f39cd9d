"""Helpers for waiting: for a shared Deferred, with a timeout, and for several coroutines."""

from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, DeferredList, ensureDeferred
from twisted.python.failure import Failure

A = TypeVar("A")


class TimedOut(Exception):
    """Something was not done in time."""


def run_until_waiting(coroutine: Coroutine[Deferred[Any], Any, A]) -> A | Deferred[A]:
    """Run a coroutine: its result if it need not wait for anything, else a Deferred of it.

    Raises the error of a coroutine that need not wait. Most requests are answered without waiting,
    and then no Deferred is made.
    """
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: A = end.value
        return result
    # It waits for a Deferred, which the new one awaits again.
    return Deferred.fromCoroutine(coroutine)


def wait_for_completion(running: Deferred[Any]) -> Deferred[None]:
    """A separate Deferred for the caller that fires, without a value, when `running` does.

    Cancelling it does not affect `running`, nor other callers that wait for it.
    """
    done: Deferred[None] = Deferred()

    def pass_on(result: Any) -> Any:
        if not done.called:
            done.callback(None)
        return result

    running.addBoth(pass_on)
    return done


def fire_once(deferred: Deferred[None]) -> Callable[[], None]:
    """A function that fires a Deferred at its first call, and does nothing at later ones."""

    def fire() -> None:
        if not deferred.called:
            deferred.callback(None)

    return fire


async def with_timeout(work: Awaitable[A], seconds: float, clock: Any) -> A:
    """The result of an awaitable, if it is ready within `seconds`; else it is cancelled.

    Raises `TimedOut` then, even if the awaitable ignores its cancellation.
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


async def gather_all(coroutines: Iterable[Coroutine[Any, Any, A]]) -> list[A]:
    """Run coroutines concurrently and return their results in order.

    Raises the error of the first of them that fails, once all have ended.
    """
    running: list[Deferred[Any]] = [Deferred.fromCoroutine(each) for each in coroutines]
    results: list[A] = []
    for succeeded, result in await DeferredList(running, consumeErrors=True):
        if not succeeded:
            result.raiseException()
        results.append(result)
    return results

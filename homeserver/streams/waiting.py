"""Waiting for the same thing as somebody else, and for several things."""

from collections.abc import Coroutine
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, DeferredList

A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")


def joined(running: Deferred[Any]) -> Deferred[None]:
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


async def all_four(
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

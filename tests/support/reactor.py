"""Coroutines that are run to their end on the reactor, from an ordinary function of a test."""

import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, FirstError, gatherResults
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure

T = TypeVar("T")


class TookTooLong(AssertionError):
    """The coroutine had not ended when its time was over."""


def run(coroutine: Coroutine[Any, Any, T], timeout: float = 240.0) -> T:
    """Run a coroutine and return its result; it is cancelled after `timeout` seconds.

    The reactor runs only meanwhile: between calls, listening ports do not respond.
    """
    outcome: list[Any] = []
    running = Deferred.fromCoroutine(coroutine)
    running.addBoth(outcome.append)
    if not outcome:
        running.addTimeout(timeout, reactor, lambda *_: None)
        running.addBoth(lambda _: reactor.crash())
        # As Trial's runner does: `crash` ends the loop but lets it be run again.
        reactor.run(installSignalHandlers=False)
        _end_threads()
    if not outcome:
        raise KeyboardInterrupt  # nothing but a signal ends the loop before
    if _is_cancellation(outcome[0]):
        raise TookTooLong(f"not done within {timeout} s")
    if isinstance(outcome[0], Failure):
        outcome[0].raiseException()
    result: T = outcome[0]
    return result


async def in_thread(function: Callable[..., T], *arguments: Any) -> T:
    """Run a blocking function in a thread, while the reactor continues."""
    result: T = await deferToThread(function, *arguments)
    return result


async def pause(seconds: float) -> None:
    """Let time pass on the reactor."""
    passed: Deferred[None] = Deferred()
    reactor.callLater(seconds, passed.callback, None)
    await passed


async def until(condition: Callable[[], bool], timeout: float = 20.0) -> None:
    """Let time pass until the condition holds; `TookTooLong` after `timeout` seconds."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise TookTooLong(f"not so within {timeout} s")
        await pause(0.01)


async def together(*coroutines: Coroutine[Any, Any, T]) -> list[T]:
    """Run coroutines concurrently and return their results; the first error ends the wait."""
    running = [Deferred.fromCoroutine(coroutine) for coroutine in coroutines]
    try:
        results: list[T] = await gatherResults(running, consumeErrors=True)
    except FirstError as error:
        error.subFailure.raiseException()
    return results


def _end_threads() -> None:
    # A reactor that was not shut down leaves threads behind that keep the process from ending.
    if reactor.threadpool is not None:
        reactor._stopThreadPool()


def _is_cancellation(outcome: Any) -> bool:
    return isinstance(outcome, Failure) and outcome.check(CancelledError) is not None

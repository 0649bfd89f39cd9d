"""Coroutines in commands: the reactor runs for as long as one of them does."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.python.failure import Failure

from homeserver.cli.errors import CommandError
from homeserver.concurrency.clock import steady
from homeserver.concurrency.stop_signals import call_on_stop_signal

T = TypeVar("T")


def run_in_reactor(function: Callable[[Any], Awaitable[T]]) -> T:
    """Run a coroutine function with the reactor as argument; returns or raises its result.

    A signal to stop cancels it, so that it releases its resources, and raises `CommandError`.
    """
    from twisted.internet import reactor as installed

    reactor: Any = steady(installed)
    outcome: list[T | Failure] = []
    work: list[Deferred[T]] = []

    async def run() -> T:
        return await function(reactor)

    def end(result: T | Failure) -> None:
        outcome.append(result)
        reactor.stop()

    def begin() -> None:
        work.append(ensureDeferred(run()))
        work[0].addBoth(end)

    def stop() -> None:
        work[0].cancel()

    call_on_stop_signal(reactor, stop)
    reactor.callWhenRunning(begin)
    reactor.run(installSignalHandlers=False)
    result = outcome[0]
    if isinstance(result, Failure):
        if result.check(CancelledError):
            raise CommandError("Interrupted")
        result.raiseException()
    return result

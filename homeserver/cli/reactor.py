"""Coroutines in commands: the reactor runs for as long as one of them does."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from homeserver.cli.errors import CommandError

T = TypeVar("T")


def run_in_reactor(function: Callable[[Any], Awaitable[T]]) -> T:
    """Run a coroutine, which is given the reactor, to its end; gives or raises what it does.

    Raises `CommandError` where the reactor was stopped before.
    """
    from twisted.internet import reactor

    outcome: list[T | Failure] = []

    async def run() -> None:
        try:
            outcome.append(await function(reactor))
        except Exception:
            outcome.append(Failure())
        reactor.stop()

    reactor.callWhenRunning(Deferred.fromCoroutine, run())
    reactor.run()
    if not outcome:
        raise CommandError("Interrupted")
    result = outcome[0]
    if isinstance(result, Failure):
        result.raiseException()
    return result

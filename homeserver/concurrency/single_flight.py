"""Calls that several want at the same time are made once, and all of them get the outcome.

Who stops waiting does not stop the call: others may wait for it, and its outcome is cached.
"""

from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class SingleFlight(Generic[Key, Value]):
    """The calls under way, by what they are for."""

    def __init__(self) -> None:
        self._waiters: dict[Key, list[Deferred[Value]]] = {}

    async def join(
        self, key: Key, call: Callable[[], Coroutine[Deferred[Any], Any, Value]]
    ) -> Value:
        """The outcome of the call that is under way for `key`, or else of `call`."""
        waiter: Deferred[Value] = Deferred()
        waiters = self._waiters.get(key)
        if waiters is not None:
            waiters.append(waiter)
            return await waiter
        self._waiters[key] = [waiter]
        Deferred.fromCoroutine(call()).addBoth(self._ended, key)
        return await waiter

    def _ended(self, outcome: Value | Failure, key: Key) -> None:
        for waiter in self._waiters.pop(key):
            if not waiter.called:
                if isinstance(outcome, Failure):
                    waiter.errback(outcome)
                else:
                    waiter.callback(outcome)

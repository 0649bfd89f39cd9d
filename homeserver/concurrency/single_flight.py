"""Single flight: concurrent calls for the same key are made once, and all callers get the outcome.

A caller that stops waiting does not stop the call: other callers may wait for it, and the outcome
is cached.
"""

from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class SingleFlight(Generic[Key, Value]):
    """The calls in progress, by key."""

    def __init__(self) -> None:
        self._waiters: dict[Key, list[Deferred[Value]]] = {}

    async def join(
        self, key: Key, call: Callable[[], Coroutine[Deferred[Any], Any, Value]]
    ) -> Value:
        """The outcome of the call in progress for `key`, or else of `call`."""
        waiter: Deferred[Value] = Deferred()
        waiters = self._waiters.get(key)
        if waiters is not None:
            waiters.append(waiter)
            return await waiter
        waiters = self._waiters[key] = [waiter]
        Deferred.fromCoroutine(call()).addBoth(self._ended, key, waiters)
        return await waiter

    def is_running(self, key: Key) -> bool:
        """Whether a call for `key` is in progress."""
        return key in self._waiters

    def forget(self, key: Key) -> None:
        """Have the next caller make a new call, since the outcome of this one is outdated.

        Callers that wait already still get that outcome.
        """
        self._waiters.pop(key, None)

    def _ended(self, outcome: Value | Failure, key: Key, waiters: list[Deferred[Value]]) -> None:
        if self._waiters.get(key) is waiters:
            del self._waiters[key]
        for waiter in waiters:
            if not waiter.called:
                if isinstance(outcome, Failure):
                    waiter.errback(outcome)
                else:
                    waiter.callback(outcome)

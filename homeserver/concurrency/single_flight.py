"""Single flight: concurrent calls for the same key are made once, and all callers get the outcome.

A caller that stops waiting does not stop the call: other callers may wait for it, and the outcome
is cached.
"""

from collections.abc import Callable, Coroutine, Hashable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from twisted.internet.defer import Deferred, DeferredList
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

    async def join_many(
        self,
        keys: Iterable[Key],
        call: Callable[[Sequence[Key]], Coroutine[Deferred[Any], Any, Mapping[Key, Value]]],
    ) -> None:
        """Wait until the calls for all keys have ended, well or not.

        One `call` is made for all keys without a call in progress, and returns all their values.
        """
        waiting: list[Deferred[Value]] = []
        own: dict[Key, list[Deferred[Value]]] = {}
        for key in keys:
            waiters = self._waiters.get(key)
            if waiters is None:
                waiters = own[key] = self._waiters[key] = []
            waiter: Deferred[Value] = Deferred()
            waiters.append(waiter)
            waiting.append(waiter)
        if own:
            Deferred.fromCoroutine(call(list(own))).addBoth(self._all_ended, own)
        await DeferredList(waiting, consumeErrors=True)

    def _all_ended(
        self, outcome: Mapping[Key, Value] | Failure, waiting: Mapping[Key, list[Deferred[Value]]]
    ) -> None:
        for key, waiters in waiting.items():
            self._ended(outcome if isinstance(outcome, Failure) else outcome[key], key, waiters)

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

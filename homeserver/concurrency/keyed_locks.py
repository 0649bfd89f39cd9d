"""Locks by key, which serialise read-then-write operations on one key."""

from collections import deque
from collections.abc import Hashable
from contextlib import suppress
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred

from homeserver.concurrency.clock import Clock
from homeserver.concurrency.deferreds import TimedOut, with_timeout

Key = TypeVar("Key", bound=Hashable)


class KeyedLocks(Generic[Key]):
    """A lock for each key that a caller holds or waits for; no others are stored.

    A lock that is free is taken without a Deferred: every message that a client sends takes one.
    """

    def __init__(self) -> None:
        self._waiting: dict[Key, deque[Deferred[None]]] = {}

    def hold(self, key: Key) -> "_HeldLock[Key]":
        """A context in which the lock of a key is held; a waiting caller may be cancelled."""
        return _HeldLock(self._waiting, key)

    def is_held(self, key: Key) -> bool:
        """Whether a caller that wants the lock of a key must wait."""
        return key in self._waiting

    async def wait_until_free(self, key: Key, seconds: float, clock: Clock) -> None:
        """Wait at most `seconds` for the callers that hold the lock of a key, or wait for it."""
        if key in self._waiting:
            with suppress(TimedOut):
                await with_timeout(self._hold_briefly(key), seconds, clock)

    async def _hold_briefly(self, key: Key) -> None:
        async with self.hold(key):
            pass

    def __len__(self) -> int:
        """The number of locked keys."""
        return len(self._waiting)


class _HeldLock(Generic[Key]):
    """The context of one caller."""

    __slots__ = ("_key", "_waiting")

    def __init__(self, waiting_callers: dict[Key, deque[Deferred[None]]], key: Key) -> None:
        self._waiting = waiting_callers
        self._key = key

    async def __aenter__(self) -> None:
        waiting = self._waiting.get(self._key)
        if waiting is None:
            self._waiting[self._key] = deque()
            return
        waiter: Deferred[None] = Deferred(waiting.remove)
        waiting.append(waiter)
        await waiter

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is GeneratorExit:
            # Nothing refers to this coroutine any more. It is destroyed in the midst of other code,
            # where none may be resumed, and those that wait for it are destroyed with it.
            self._waiting.pop(self._key, None)
            return
        waiting = self._waiting[self._key]
        if waiting:
            # The lock is handed on: no other caller can take it in between.
            waiting.popleft().callback(None)
        else:
            del self._waiting[self._key]

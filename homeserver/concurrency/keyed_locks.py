"""Locks by key, which serialise reading and then writing for one key."""

from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

from twisted.internet.defer import DeferredLock

Key = TypeVar("Key", bound=Hashable)


class KeyedLocks(Generic[Key]):
    """A lock for each key that a caller holds or waits for; no others are stored."""

    def __init__(self) -> None:
        self._locks: dict[Key, DeferredLock] = {}

    @asynccontextmanager
    async def hold(self, key: Key) -> AsyncIterator[None]:
        """Hold the lock of a key; a waiting caller may be cancelled."""
        lock = self._locks.setdefault(key, DeferredLock())
        await lock.acquire()
        try:
            yield
        finally:
            lock.release()
            if not lock.locked:
                self._locks.pop(key, None)

    def __len__(self) -> int:
        """The number of locked keys."""
        return len(self._locks)

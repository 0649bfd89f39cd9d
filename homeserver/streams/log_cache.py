"""A bounded cache of stored data that the log keeps up to date.

An entry is loaded once, and from then on changed by log entries. A change that is published while
its entry is being loaded is applied afterwards, since the load may have read older data. So `apply`
must have no effect on an entry that includes the change already.
"""

from collections.abc import Awaitable, Callable, Hashable
from functools import partial
from typing import Generic, TypeVar

from homeserver.concurrency.lru_cache import LruCache
from homeserver.concurrency.single_flight import SingleFlight

Key = TypeVar("Key", bound=Hashable)
Entry = TypeVar("Entry")
Change = TypeVar("Change")


class LogCache(Generic[Key, Entry, Change]):
    """Entries by key, in `cache`; each is loaded once for all callers that wait for it.

    `find` gives an entry if it is in memory.
    """

    def __init__(
        self,
        cache: LruCache[Key, Entry],
        load: Callable[[Key], Awaitable[Entry]],
        apply: Callable[[Entry, Change], object],
    ) -> None:
        self._cache = cache
        self._load = load
        self._apply = apply
        self._loads: SingleFlight[Key, Entry] = SingleFlight()
        self._missed: dict[Key, list[Change]] = {}  # changes that were published during each load
        self.find: Callable[[Key], Entry | None] = cache.get

    async def get(self, key: Key) -> Entry:
        """The entry of a key, loaded if necessary. It belongs to the cache: do not change it."""
        entry = self._cache.get(key)
        if entry is None:
            entry = await self._loads.join(key, partial(self._load_and_follow, key))
        return entry

    def publish(self, key: Key, change: Change) -> None:
        """Apply a change that is durable."""
        entry = self._cache.peek(key)
        if entry is not None:
            self._apply(entry, change)
            self._cache.measure(key)
            self._cache.shrink()
        elif (missed := self._missed.get(key)) is not None:
            missed.append(change)

    def publish_to_all(self, change: Change) -> None:
        """Apply a change that is durable to every entry in memory."""
        for key in dict.fromkeys([*(key for key, _ in self._cache.items()), *self._missed]):
            self.publish(key, change)

    def forget(self, key: Key) -> None:
        """Drop an entry, and the result of a load in progress; the next `get` loads it again."""
        self._cache.pop(key)
        self._missed.pop(key, None)
        self._loads.forget(key)

    async def _load_and_follow(self, key: Key) -> Entry:
        missed = self._missed[key] = []
        try:
            entry = await self._load(key)
        finally:
            is_wanted = self._missed.get(key) is missed
            if is_wanted:
                del self._missed[key]
        for change in missed:
            self._apply(entry, change)
        return self._cache.put(key, entry) if is_wanted else entry

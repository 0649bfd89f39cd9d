"""A bounded cache of stored data that the log keeps up to date.

An entry is loaded once, and from then on changed by log entries. A change that is published while
its entry is being loaded is applied afterwards, since the load may have read older data. So `apply`
must have no effect on an entry that includes the change already.
"""

from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
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

    async def get_ready(
        self,
        keys: Iterable[Key],
        load: Callable[[Sequence[Key]], Awaitable[Mapping[Key, Entry]]],
    ) -> None:
        """Have entries in memory soon after, those that are missing by one `load` of all of them.

        A load that fails here is repeated, and raises, where the entry is needed.
        """
        missing = [key for key in keys if self._cache.peek(key) is None]
        await self._loads.join_many(missing, partial(self._load_all_and_follow, load))

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
        async def load(_: Sequence[Key]) -> Mapping[Key, Entry]:
            return {key: await self._load(key)}

        return (await self._load_all_and_follow(load, (key,)))[key]

    async def _load_all_and_follow(
        self,
        load: Callable[[Sequence[Key]], Awaitable[Mapping[Key, Entry]]],
        keys: Sequence[Key],
    ) -> Mapping[Key, Entry]:
        missed: dict[Key, list[Change]] = {key: [] for key in keys}
        self._missed |= missed
        wanted = set[Key]()
        try:
            entries = await load(keys)
        finally:
            for key, changes in missed.items():
                if self._missed.get(key) is changes:
                    wanted.add(key)
                    del self._missed[key]
        for key, changes in missed.items():
            for change in changes:
                self._apply(entries[key], change)
            if key in wanted:
                self._cache.put(key, entries[key])
        return entries

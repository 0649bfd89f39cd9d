"""The one cache: a bounded number of values, of which the least recently used one is evicted.

All data that could be read or computed again is cached in one of these, so that each cache has a
bound and its use can be measured. Operators see each cache by its name in the metrics.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, ItemsView, ValuesView
from itertools import islice
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class LruCache(Generic[Key, Value]):
    """Values by key, at most `capacity` of them, or of the sum of their sizes by `size_of`.

    Beyond it the least recently used are evicted, and passed to `on_evict` with their keys, except
    those that `is_pinned` and, of a cache with either function, the most recently used one, however
    large it is. A value is never `None`. A cache without a name is not shown in the metrics.
    `is_in_bytes` says that the sizes are bytes of memory, `shares_values` that another cache has
    the values, too, and counts their memory.

    `hits` and `misses` count the calls of `get`, `evictions` the evicted values. `peek` is `get`
    without counting, and without making the value the most recently used; a caller that finds out
    only later whether it can use a value adds to `hits` or `misses` itself.
    """

    __slots__ = (
        "_is_pinned",
        "_on_evict",
        "_size_of",
        "_sizes",
        "_total",
        "_values",
        "capacity",
        "evictions",
        "hits",
        "is_in_bytes",
        "misses",
        "name",
        "peek",
        "shares_values",
        "touch",
    )

    def __init__(
        self,
        name: str,
        capacity: int,
        *,
        size_of: Callable[[Key, Value], int] | None = None,
        is_pinned: Callable[[Value], bool] | None = None,
        on_evict: Callable[[Key, Value], object] | None = None,
        is_in_bytes: bool = False,
        shares_values: bool = False,
    ) -> None:
        self.name = name
        self.is_in_bytes = is_in_bytes
        self.shares_values = shares_values
        self.capacity = capacity
        self.hits = 0
        self.misses = 0
        self.evictions = 0
        self._size_of = size_of
        self._is_pinned = is_pinned
        self._on_evict = on_evict
        self._values: OrderedDict[Key, Value] = OrderedDict()
        self._sizes: dict[Key, int] = {}  # empty where values are counted
        self._total = 0
        # Called for every event and every `/sync` response, so these are the dictionary's methods.
        self.peek: Callable[[Key], Value | None] = self._values.get
        self.touch: Callable[[Key], None] = self._values.move_to_end

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, key: Key) -> bool:
        return key in self._values

    @property
    def size(self) -> int:
        """The total size of the values, in the unit of `capacity`."""
        return len(self._values) if self._size_of is None else self._total

    def get(self, key: Key) -> Value | None:
        """The value of a key, if it is cached."""
        # This is called for every event, mostly with success: a look-up before would cost a third.
        try:
            self.touch(key)
        except KeyError:
            self.misses += 1
            return None
        self.hits += 1
        return self._values[key]

    def put(self, key: Key, value: Value) -> Value:
        """Store a value in place of the previous one; returns it."""
        self._values[key] = value
        self._values.move_to_end(key)
        if self._size_of is not None:
            size = self._size_of(key, value)
            self._total += size - self._sizes.get(key, 0)
            self._sizes[key] = size
            if self._total > self.capacity:
                self.shrink()
        elif len(self._values) > self.capacity:
            self.shrink()
        return value

    def setdefault(self, key: Key, value: Value) -> Value:
        """The value of a key, after setting it to this one if there was none."""
        kept = self.peek(key)
        return self.put(key, value) if kept is None else kept

    def pop(self, key: Key) -> Value | None:
        """Remove a value, and return it."""
        self._total -= self._sizes.pop(key, 0)
        return self._values.pop(key, None)

    def clear(self) -> None:
        """Remove all values."""
        self._values.clear()
        self._sizes.clear()
        self._total = 0

    def values(self) -> ValuesView[Value]:
        """All values, the least recently used first."""
        return self._values.values()

    def items(self) -> ItemsView[Key, Value]:
        """All keys with their values, the least recently used first."""
        return self._values.items()

    def measure(self, key: Key) -> None:
        """Measure the size of a value again, after it changed; nothing is evicted yet."""
        if self._size_of is not None and (value := self._values.get(key)) is not None:
            size = self._size_of(key, value)
            self._total += size - self._sizes.get(key, 0)
            self._sizes[key] = size

    def shrink(self) -> None:
        """Evict values beyond the capacity, as `put` does."""
        if self.size <= self.capacity:
            return
        if self._size_of is None and self._is_pinned is None:
            while len(self._values) > self.capacity:
                self._evicted(*self._values.popitem(last=False))
            return
        for key in self._beyond_capacity():
            self._evicted(key, self._values.pop(key))

    def _beyond_capacity(self) -> list[Key]:
        excess = self.size - self.capacity
        found: list[Key] = []
        for key, value in islice(self._values.items(), max(len(self._values) - 1, 0)):
            if excess <= 0:
                break
            if self._is_pinned is None or not self._is_pinned(value):
                found.append(key)
                excess -= 1 if self._size_of is None else self._sizes[key]
        return found

    def _evicted(self, key: Key, value: Value) -> None:
        self.evictions += 1
        self._total -= self._sizes.pop(key, 0)
        if self._on_evict is not None:
            self._on_evict(key, value)

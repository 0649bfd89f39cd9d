"""A cache of a bounded number of values: the one that was not used for longest goes first."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class LruCache(Generic[Key, Value]):
    """At most `capacity` values; `dropped` is called with each that has to go for a newer one."""

    def __init__(self, capacity: int, dropped: Callable[[Value], object] | None = None) -> None:
        self._capacity = capacity
        self._dropped = dropped
        self._values: OrderedDict[Key, Value] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: Key) -> Value | None:
        """The value, if it is there."""
        value = self._values.get(key)
        if value is not None:
            self._values.move_to_end(key)
        return value

    def put(self, key: Key, value: Value) -> None:
        """Keep a value, in place of what was there."""
        self._values[key] = value
        self._values.move_to_end(key)
        while len(self._values) > self._capacity:
            _, oldest = self._values.popitem(last=False)
            if self._dropped is not None:
                self._dropped(oldest)

    def pop(self, key: Key) -> Value | None:
        """Forget a value; it is given back."""
        return self._values.pop(key, None)

    def pop_all(self) -> list[Value]:
        """Forget all values; they are given back."""
        values, self._values = list(self._values.values()), OrderedDict()
        return values

"""Computations on data in memory, which report the data that has to be loaded first.

Unread counts are part of every delivery, so they are computed without waiting. Where data is not in
memory, the attempt ends with `PushDataNotInMemory`; a caller that can wait loads it and tries
again, any other does without.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class PushDataNotInMemory(LookupError):
    """Data has to be loaded first, by `await missing.load()`."""

    def __init__(self, load: Callable[[], Awaitable[None]]) -> None:
        super().__init__("not in memory")
        self.load = load


class Memo(Generic[Key, Value]):
    """A cache of computed values; beyond `capacity` the oldest is evicted."""

    __slots__ = ("_capacity", "_values", "get")

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._values: OrderedDict[Key, Value] = OrderedDict()
        self.get = self._values.get

    def __contains__(self, key: Key) -> bool:
        return key in self._values

    def __len__(self) -> int:
        return len(self._values)

    def put(self, key: Key, value: Value) -> Value:
        """Cache a value, and return it."""
        self._values[key] = value
        if len(self._values) > self._capacity:
            self._values.popitem(last=False)
        return value

    def drop(self, key: Key) -> None:
        """Forget a value, if it is there."""
        self._values.pop(key, None)

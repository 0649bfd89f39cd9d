"""Reading from memory what can be read from memory, and saying what has to be loaded first.

Unread counts are asked for with every delivery, so they are worked out without waiting. Where
something is not at hand, the attempt ends with `PushDataNotInMemory`; whoever can wait loads it and
tries again, all the others leave it.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class PushDataNotInMemory(LookupError):
    """Something has to be loaded first, by `await missing.load()`."""

    def __init__(self, load: Callable[[], Awaitable[None]]) -> None:
        super().__init__("not in memory")
        self.load = load


class Memo(Generic[Key, Value]):
    """Values that were worked out before; beyond `capacity` the oldest goes."""

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
        """Remember a value; gives it back."""
        self._values[key] = value
        if len(self._values) > self._capacity:
            self._values.popitem(last=False)
        return value

    def drop(self, key: Key) -> None:
        """Forget a value, if it is there."""
        self._values.pop(key, None)

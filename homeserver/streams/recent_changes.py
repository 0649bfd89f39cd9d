"""The last change of each key, as far as it is in memory: for readers that ask what is new."""

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Change = TypeVar("Change")


class RecentChanges(Generic[Key, Change]):
    """The last changes in the order of publication, at most `capacity`; complete above `floor`.

    Where several owners publish, positions do not follow this order: each change is kept with the
    highest position so far.
    """

    def __init__(self, capacity: int, floor: int) -> None:
        self.floor = floor
        self._capacity = capacity
        self._highest = floor
        self._changes: OrderedDict[Key, tuple[int, Change]] = OrderedDict()

    def put(self, key: Key, position: int, change: Change) -> None:
        """Note a change that has just been published, in place of an earlier one of its key."""
        self._highest = max(self._highest, position)
        self._changes[key] = self._highest, change
        self._changes.move_to_end(key)
        if len(self._changes) > self._capacity:
            self.floor = self._changes.popitem(last=False)[1][0]

    def may_have(self, key: Key, position: int) -> bool:
        """False if a key did not change above a position."""
        known = self._changes.get(key)
        return position < self.floor or (known is not None and known[0] > position)

    def above(self, position: int) -> Iterator[tuple[Key, Change]]:
        """The changes that may be above a position, the latest first."""
        for key, (highest, change) in reversed(self._changes.items()):
            if highest <= position:
                return
            yield key, change

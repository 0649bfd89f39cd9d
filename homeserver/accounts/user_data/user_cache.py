"""A bounded cache of a user's stored data, kept current by the log.

An entry is loaded once, and from then on changed by the entries of the log. A change that is
published while its user's entry is being loaded is applied afterwards: the load may have been too
early to see it. So `apply` must do no harm when the entry has the change already.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

Entry = TypeVar("Entry")
Change = TypeVar("Change")


class UserCache(Generic[Entry, Change]):
    """Entries by user id; beyond `capacity` the least recently used one is evicted."""

    def __init__(
        self,
        load: Callable[[str], Awaitable[Entry]],
        apply: Callable[[Entry, Change], None],
        capacity: int,
    ) -> None:
        self._load = load
        self._apply = apply
        self._capacity = capacity
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self._loading: dict[str, list[list[Change]]] = {}  # the changes during each load

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, user_id: str) -> Entry | None:
        """The entry of a user, if it is in memory."""
        entry = self._entries.get(user_id)
        if entry is not None:
            self._entries.move_to_end(user_id)
        return entry

    async def get(self, user_id: str) -> Entry:
        """The entry of a user, loaded where needed. It belongs to the cache: do not change it."""
        entry = self.find(user_id)
        if entry is not None:
            return entry
        missed: list[Change] = []
        loads = self._loading.setdefault(user_id, [])
        loads.append(missed)
        try:
            entry = await self._load(user_id)
        finally:
            # By identity: two loads may have missed the same changes.
            loads[:] = [other for other in loads if other is not missed]
            was_forgotten = self._loading.get(user_id) is not loads
            if not loads and not was_forgotten:
                del self._loading[user_id]
        for change in missed:
            self._apply(entry, change)
        return entry if was_forgotten else self._keep(user_id, entry)

    def publish(self, user_id: str, change: Change) -> None:
        """Apply a durable change of a user."""
        entry = self._entries.get(user_id)
        if entry is not None:
            self._apply(entry, change)
        for missed in self._loading.get(user_id, ()):
            missed.append(change)

    def forget(self, user_id: str) -> None:
        """Load this user's entry again when it is needed next."""
        self._entries.pop(user_id, None)
        self._loading.pop(user_id, None)

    def _keep(self, user_id: str, entry: Entry) -> Entry:
        kept = self._entries.setdefault(user_id, entry)
        if len(self._entries) > self._capacity:
            self._entries.popitem(last=False)
        return kept

"""A bound on the total memory of many buffers that clients and other servers fill.

Each buffer has a bound of its own, but a few malicious senders could fill many at the same time.
Input that exceeds the budget is not read to its end.
"""

from collections import Counter


class MemoryBudget:
    """`limit` bytes for all buffers together, of which one party gets at most `share`.

    `taken` bytes are in use.
    """

    def __init__(self, limit: int, share: int | None = None) -> None:
        self._limit = limit
        self._share = limit if share is None else share
        self._taken_by: Counter[str] = Counter()
        self.taken = 0

    def reservation(self, party: str = "") -> "Reservation":
        """A reservation for one buffer of a party; "" is no party, and has no share limit."""
        return Reservation(self, party)

    def has_room(self, size: int, party: str = "") -> bool:
        """Whether so many bytes are left for a party."""
        return self.taken + size <= self._limit and (
            not party or self._taken_by[party] + size <= self._share
        )

    def take(self, size: int, party: str) -> bool:
        """Take some bytes; false if too few are left."""
        if not self.has_room(size, party):
            return False
        self.taken += size
        if party:
            self._taken_by[party] += size
        return True

    def give_back(self, size: int, party: str) -> None:
        """Return bytes that were taken."""
        self.taken -= size
        if party:
            self._taken_by[party] -= size
            if not self._taken_by[party]:
                del self._taken_by[party]


class Reservation:
    """The bytes of one buffer; call `release` when it is no longer needed."""

    __slots__ = ("_budget", "_party", "_size")

    def __init__(self, budget: MemoryBudget, party: str) -> None:
        self._budget = budget
        self._party = party
        self._size = 0

    def reserve(self, size: int) -> bool:
        """Reserve more bytes; false if the budget does not allow it."""
        if not self._budget.take(size, self._party):
            return False
        self._size += size
        return True

    def release(self) -> None:
        """Return all bytes."""
        if self._size:
            self._budget.give_back(self._size, self._party)
            self._size = 0

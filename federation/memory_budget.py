"""The memory that answers of other servers may take all together, while they are read.

A room's state may be large, so each answer may be; but a few malicious servers could send as large
ones at the same time, and fill the memory. What does not fit is not read to its end.
"""


class MemoryBudget:
    """`limit` bytes, for all answers together; `taken` of them are in use."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.taken = 0

    def answer(self) -> "BudgetedAnswer":
        """One answer that is going to be read."""
        return BudgetedAnswer(self)

    def take(self, size: int) -> bool:
        """Take some bytes; false where they are not left."""
        if self.taken + size > self._limit:
            return False
        self.taken += size
        return True

    def give_back(self, size: int) -> None:
        """Give bytes back that were taken."""
        self.taken -= size


class BudgetedAnswer:
    """What one answer has taken; `release` when it is not needed any more."""

    def __init__(self, budget: MemoryBudget) -> None:
        self._budget = budget
        self._size = 0

    def may_keep(self, size: int) -> bool:
        """Whether the next bytes may be kept."""
        if not self._budget.take(size):
            return False
        self._size += size
        return True

    def release(self) -> None:
        """Give all back."""
        self._budget.give_back(self._size)
        self._size = 0

"""Event numbers: small integers by which the database knows events, in ranges from the database.

They are no positions: state trees and indexes hold so many of them that their size counts. Nor do
they say when an event was published, for an event gets its number before it is checked. But it gets
it after all events that it cites have theirs, so the order of numbers is a topological order of
each room. With several processes it remains one if a process that begins to write in a room first
leaves a range that is below a number of that room.
"""

from collections import deque

from homeserver.protocol.errors import Unavailable

MIN_LEFT = 200_000  # numbers that must be left for work to begin, so that it can be finished


class EventNumbers:
    """Hands out the numbers of reserved ranges; each is (the number before the first, the last)."""

    def __init__(self, before: int, last: int) -> None:
        self.last_used = before
        self._last = last
        self._reserved: deque[tuple[int, int]] = deque()  # further ranges

    @property
    def left(self) -> int:
        """How many numbers are reserved and not used yet."""
        return self._last - self.last_used + sum(last - before for before, last in self._reserved)

    @property
    def is_low(self) -> bool:
        """Whether too few numbers are left for work to begin."""
        return self._last - self.last_used < MIN_LEFT and self.left < MIN_LEFT

    def reserve(self, before: int, last: int) -> None:
        """Add a range."""
        if before == (self._reserved[-1][1] if self._reserved else self._last):
            # The ranges adjoin unless another process reserved in between.
            if self._reserved:
                self._reserved[-1] = (self._reserved[-1][0], last)
            else:
                self._last = last
        else:
            self._reserved.append((before, last))

    def next(self) -> int:
        """A fresh number. Raises `Unavailable` where none is left."""
        if self.last_used >= self._last:
            if not self._reserved:
                raise Unavailable("The server cannot store changes just now; try again in a moment")
            self.last_used, self._last = self._reserved.popleft()
        self.last_used += 1
        return self.last_used

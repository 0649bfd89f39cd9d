"""Positions of the log: a hybrid clock, which follows the wall clock and never runs back.

A position is the time in microseconds since 2024, shifted left by `SLOT_BITS`, with the process's
*slot* in the low bits. Each is larger than the one before: within a microsecond, and while the wall
clock is behind, the part above the slot goes up by one. So two processes never make the same
position, need not agree on anything, and make them in the order of time, as exactly as their clocks
agree. Nothing may be read from the difference of two positions.

Clocks jump, and a process that starts must not use a position again, though typing and presence are
never stored. So a *bound* is stored in the database before it is needed (`CounterReserve`): no
position above it is ever handed out, and a process begins above the bound that it finds. If the
wall clock jumps beyond the bound, positions go on as if it stood still, until the bound has been
moved; if it jumps back, until it has caught up. A database from before this scheme has a counter as
its bound, which is below the time; so is all that is stored in it.

The idea: Kulkarni et al., Logical Physical Clocks, 2014.
"""

from homeserver.concurrency.clock import Clock, wall_seconds
from homeserver.protocol.errors import Unavailable

EPOCH_SECONDS = 1_704_067_200  # 2024-01-01T00:00:00Z
MAX_POSITION = 1 << 62  # above all positions, and above all depths of rooms
SLOT_BITS = 10
STEP = 1 << SLOT_BITS  # from a position to the next one of the same slot
STEPS_PER_SECOND = 1_000_000
MIN_LEFT = 200_000 * STEP  # below the bound for work to begin, so that it can be finished


def position_at(wall: float) -> int:
    """The lowest position of a moment, in seconds since the epoch; 0 before 2024."""
    return max(0, int((wall - EPOCH_SECONDS) * STEPS_PER_SECOND)) << SLOT_BITS


def seconds_at(position: int) -> float:
    """The moment of a position, in seconds since the epoch, as exactly as positions follow it."""
    return EPOCH_SECONDS + (position >> SLOT_BITS) / STEPS_PER_SECOND


class Positions:
    """Hands out the positions of one process: above `last`, up to and including `bound`.

    The clock is read once for each batch of the log, which calls `begin_batch`.

    Raises `ValueError` for a slot that has more bits than there are.
    """

    __slots__ = ("_clock", "_is_clock_due", "_slot", "bound", "last")

    def __init__(self, clock: Clock, last: int, bound: int, slot: int = 0) -> None:
        if not 0 <= slot < STEP:
            raise ValueError(f"a slot is a number below {STEP}")
        self._clock = clock
        self._slot = slot
        self._is_clock_due = True
        self.last = last + (slot - last) % STEP  # of the same slot as all that follow
        self.bound = bound

    @property
    def is_low(self) -> bool:
        """Whether too few positions are left below the bound for work to begin."""
        return self.bound - self.last < MIN_LEFT

    def begin_batch(self) -> None:
        """Have the clock read before the next position."""
        self._is_clock_due = True

    def next(self) -> int:
        """A fresh position. Raises `Unavailable` at the bound."""
        position = self.last + STEP
        if self._is_clock_due:
            self._is_clock_due = False
            now = position_at(wall_seconds(self._clock)) | self._slot
            if position < now <= self.bound:
                position = now
        if position > self.bound:
            raise Unavailable("The server cannot store changes just now; try again in a moment")
        self.last = position
        return position

    def bound_ahead(self, seconds: int) -> int:
        """The bound that leaves positions for so many seconds, whatever the clock does."""
        now = max(self.last, position_at(wall_seconds(self._clock)))
        return now + seconds * STEPS_PER_SECOND * STEP

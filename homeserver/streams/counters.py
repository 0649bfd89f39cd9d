"""The log's two counters, positions and event numbers, and what the database holds of them.

Both are reserved before they are used, so that a process never uses again what one before it may
have used, however that one ended.

No start looks through what is stored: the bound of positions and the reservation of numbers are in
the same database, and so in the same dump, as all that they were used for. A restored dump
therefore has a bound above all its positions, even where the clock is an hour slow; and while
clocks are right, it goes on above the positions that were handed out after the dump, too.
"""

import msgspec
from twisted.internet.defer import Deferred

from homeserver.concurrency.clock import Clock, wall_seconds
from homeserver.concurrency.periodic import PeriodicTask
from homeserver.storage.database.database import Database
from homeserver.storage.database.server_state import (
    raise_position_bound,
    reserve_event_numbers,
    reserve_positions,
)
from homeserver.streams.event_numbers import EventNumbers
from homeserver.streams.positions import STEP, STEPS_PER_SECOND, Positions, position_at

BOUND_SECONDS = 60  # that the bound of positions is ahead of the clock when it is moved
MOVE_SECONDS = 30  # ahead, from which on it is moved
NUMBER_COUNT = 2_000_000  # event numbers that are reserved at a time
CHECK_SECONDS = 10.0


class Counters(msgspec.Struct, frozen=True):
    """The counters of one log."""

    positions: Positions
    numbers: EventNumbers


async def open_counters(
    db: Database, clock: Clock, count: int = NUMBER_COUNT, slot: int = 0
) -> Counters:
    """The counters of a new log, with the reservations for its first moments.

    No other process that runs has the same `slot`.
    """
    now = position_at(wall_seconds(clock))
    size = BOUND_SECONDS * STEPS_PER_SECOND * STEP
    last = await db.run(reserve_positions, size, above=now)
    before = await db.run(reserve_event_numbers, count)
    return Counters(Positions(clock, last, last + size, slot), EventNumbers(before, before + count))


class CounterReserve:
    """Moves the bound of positions, and reserves `count` event numbers, before they are used up."""

    def __init__(
        self, db: Database, clock: Clock, counters: Counters, count: int = NUMBER_COUNT
    ) -> None:
        self._db = db
        self._positions, self._numbers = counters.positions, counters.numbers
        self._count = count
        self._checking = PeriodicTask(
            clock, CHECK_SECONDS, self._check, name="the reservation of positions"
        )

    def start(self) -> None:
        """Begin to reserve whenever little is left."""
        self._checking.start()

    def stop(self) -> Deferred[None]:
        """Stop reserving; fires when no reservation is in progress."""
        return self._checking.stop()

    async def _check(self) -> None:
        positions, numbers = self._positions, self._numbers
        if positions.bound < positions.bound_ahead(MOVE_SECONDS):
            bound = positions.bound_ahead(BOUND_SECONDS)
            await self._db.run(raise_position_bound, bound)
            positions.bound = bound
        if numbers.left < self._count // 2:
            # Other processes may reserve too: the next range need not adjoin.
            before = await self._db.run(reserve_event_numbers, self._count)
            numbers.reserve(before, before + self._count)

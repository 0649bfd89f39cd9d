"""Positions are reserved in the database before they are used, a great many at a time.

So positions of changes that are never stored, such as typing, are not given out again after a
crash, and a token from before it stays below everything that comes later. A process begins above
all that is stored, whatever the reservation says: two changes at one position would be one.
"""

from twisted.internet.defer import Deferred

from homeserver.concurrency.clock import Clock
from homeserver.concurrency.periodic import PeriodicTask
from homeserver.storage.database.database import Database
from homeserver.storage.database.server_state import reserve_positions
from homeserver.storage.database.stored_positions import highest_position
from homeserver.streams.log import Log

RESERVED = 2_000_000  # at a time
CHECK_SECONDS = 10.0


async def reserve_first_positions(db: Database, count: int = RESERVED) -> tuple[int, int]:
    """Reserve positions for a new log: the position before the first of them, and the last one."""
    stored = await db.run(highest_position)
    start = await db.run(reserve_positions, count, above=stored)
    return start, start + count


class PositionReserve:
    """Keeps a log's positions below what is reserved, `count` at a time."""

    def __init__(self, db: Database, clock: Clock, log: Log, count: int = RESERVED) -> None:
        self._db = db
        self._log = log
        self._count = count
        self._checking = PeriodicTask(
            clock, CHECK_SECONDS, self._check, name="the reservation of positions"
        )

    def start(self) -> None:
        """Reserve more in time from now on."""
        self._checking.start()

    def stop(self) -> Deferred[None]:
        """Reserve no more; fires when nothing is under way."""
        return self._checking.stop()

    async def _check(self) -> None:
        if self._log.positions_left < self._count // 2:
            # Ours may not be the only process that reserves: the next range need not adjoin.
            start = await self._db.run(reserve_positions, self._count)
            self._log.reserve(start, start + self._count)

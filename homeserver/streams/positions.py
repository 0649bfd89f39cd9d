"""The reservation of positions in the database before they are used, two million at a time.

So positions of changes that are never stored, such as typing, are not used again after a crash, and
a token from before it stays below every later position. A process begins above all that is stored,
even if the reservation is lower: two changes at one position would count as one.
"""

from twisted.internet.defer import Deferred

from homeserver.concurrency.clock import Clock
from homeserver.concurrency.periodic import PeriodicTask
from homeserver.storage.database.database import Database
from homeserver.storage.database.server_state import reserve_positions
from homeserver.storage.database.stored_positions import highest_position
from homeserver.streams.log import Log

RESERVE_COUNT = 2_000_000  # at a time
CHECK_SECONDS = 10.0


async def reserve_first_positions(db: Database, count: int = RESERVE_COUNT) -> tuple[int, int]:
    """Reserve positions for a new log: the position before the first of them, and the last one."""
    stored = await db.run(highest_position)
    start = await db.run(reserve_positions, count, above=stored)
    return start, start + count


class PositionReserve:
    """Reserves positions for a log, `count` at a time, before it runs out of them."""

    def __init__(self, db: Database, clock: Clock, log: Log, count: int = RESERVE_COUNT) -> None:
        self._db = db
        self._log = log
        self._count = count
        self._checking = PeriodicTask(
            clock, CHECK_SECONDS, self._check, name="the reservation of positions"
        )

    def start(self) -> None:
        """Begin to reserve more positions whenever few are left."""
        self._checking.start()

    def stop(self) -> Deferred[None]:
        """Stop reserving; fires when no reservation is in progress."""
        return self._checking.stop()

    async def _check(self) -> None:
        if self._log.positions_left < self._count // 2:
            # Other processes may reserve too: the next range need not adjoin.
            start = await self._db.run(reserve_positions, self._count)
            self._log.reserve(start, start + self._count)

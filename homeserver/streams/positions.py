"""Positions are reserved in the database before they are used, a great many at a time.

So positions of changes that are never stored, such as typing, are not given out again after a
crash, and a token from before it stays below everything that comes later.
"""

from typing import Any

from twisted.internet.task import LoopingCall

from homeserver.storage.database import Database
from homeserver.storage.server_state import reserve_positions
from homeserver.streams.log import Log

RESERVED = 2_000_000  # at a time
CHECK_SECONDS = 10.0


class PositionReserve:
    """Keeps the log's positions below what is reserved."""

    def __init__(self, db: Database, clock: Any) -> None:
        self._db = db
        self._limit = 0
        self._checking = LoopingCall(self._check)
        self._checking.clock = clock
        self._log: Log | None = None

    async def first(self) -> int:
        """Reserve for the first time; the position before the first one that may be used."""
        start = await self._db.run(reserve_positions, RESERVED)
        self._limit = start + RESERVED
        return start

    def start(self, log: Log) -> None:
        """Reserve more in time from now on."""
        self._log = log
        self._checking.start(CHECK_SECONDS, now=False)

    def stop(self) -> None:
        """Stop looking."""
        if self._checking.running:
            self._checking.stop()

    async def _check(self) -> None:
        assert self._log is not None
        if self._log.position > self._limit - RESERVED // 2:
            # Ours may not be the only process that reserves: the next range need not adjoin.
            self._limit = await self._db.run(reserve_positions, RESERVED) + RESERVED

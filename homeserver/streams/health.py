"""Health checks of the database: it is queried, because a hung one looks healthy from outside.

A database that hangs, was stopped, or has a full disk keeps its connections open. So one row is
read and one is written, at most once a second however many requests come, and the log reports
whether its batches become durable.
"""

from collections.abc import Awaitable, Callable

from homeserver.concurrency.clock import Clock
from homeserver.concurrency.shared_check import SharedCheck
from homeserver.storage.database.database import Database
from homeserver.storage.database.server_state import probe_reading, probe_writing
from homeserver.streams.log import Log

READ_TIMEOUT_SECONDS = 3.0  # that a query may take
COMMIT_TIMEOUT_SECONDS = 3.0  # that a batch of the log may take before writing counts as unhealthy


class DatabaseHealth:
    """Checks that the database reads and writes."""

    def __init__(self, db: Database, log: Log, clock: Clock) -> None:
        self._db = db
        self._log = log
        self._reading = SharedCheck(
            clock, self._read, name="reading from the database", timeout=READ_TIMEOUT_SECONDS
        )
        self._writing = SharedCheck(
            clock, self._write, name="writing to the database", timeout=READ_TIMEOUT_SECONDS
        )

    def checks(self) -> dict[str, Callable[[], bool | Awaitable[bool]]]:
        """The checks by their names."""
        return {"database": self._reading.passes, "writes": self._writes_pass}

    def _writes_pass(self) -> bool | Awaitable[bool]:
        if not self._log.is_writing or self._log.stalled_seconds > COMMIT_TIMEOUT_SECONDS:
            return False
        return self._writing.passes()

    async def _read(self) -> bool:
        await self._db.run(probe_reading)
        return True

    async def _write(self) -> bool:
        await self._db.run(probe_writing)
        return True

"""The lease of this process on its database: renewed every second, until another one has it.

A process that was stopped for longer than the lease lasts may have been replaced meanwhile. Its
log cannot write any more (`storage/database/workers.py`); here it learns of that even if it has
nothing to write.
"""

from contextlib import suppress

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from homeserver.concurrency.clock import Clock
from homeserver.concurrency.periodic import PeriodicTask
from homeserver.protocol.errors import Unavailable
from homeserver.storage.database.database import Connection, Database, DatabaseError, Replaced
from homeserver.storage.database.workers import give_database_back, renew_lease

RENEW_SECONDS = 1.0
log = Logger()


class Lease:
    """The lease of a worker; `lost` fires when another process has taken the database over.

    It has a connection of its own: a busy pool must not make it expire.
    """

    def __init__(self, db: Database, clock: Clock, worker: int) -> None:
        self.lost: Deferred[None] = Deferred()
        self._db = db
        self._worker = worker
        self._connection: Connection | None = None
        self._renewing = PeriodicTask(
            clock, RENEW_SECONDS, self._renew, name="the renewal of the database's lease"
        )

    def start(self) -> None:
        """Begin to renew the lease."""
        self._renewing.start(now=True)

    async def give_back(self) -> None:
        """Stop renewing, and let the next process use the database at once."""
        await self._renewing.stop()
        self._close()
        if not self.lost.called:
            # If the database is unavailable, the next process waits until the lease has expired.
            with suppress(Unavailable):
                await self._db.run(give_database_back, self._worker)

    async def _renew(self) -> None:
        try:
            connection = self._connection
            if connection is None or connection.closed:
                connection = self._connection = await self._db.connect()
            if not await renew_lease(connection, self._worker):
                raise Replaced
        except Replaced:
            self._renewing.stop()
            if not self.lost.called:
                log.critical("another process has taken the database over; this one ends")
                self.lost.callback(None)
        except DatabaseError:
            # The log says what is wrong with the database. Nobody else can renew a lease either.
            self._close()

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close_now()
            self._connection = None

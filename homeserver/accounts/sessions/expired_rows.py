"""The end of what has expired: rows that are of no more use are deleted once an hour."""

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from homeserver.concurrency.clock import now_ms
from homeserver.concurrency.periodic import PeriodicTask
from homeserver.storage.accounts.authentication_sessions import (
    delete_expired_authentication_sessions,
)
from homeserver.storage.accounts.login_tokens import delete_expired_login_tokens
from homeserver.storage.accounts.openid_tokens import delete_expired_openid_tokens
from homeserver.storage.accounts.validation_sessions import delete_expired_validation_sessions
from homeserver.storage.database.database import Database

SWEEP_SECONDS = 3600.0
SWEEPS = (
    delete_expired_authentication_sessions,
    delete_expired_login_tokens,
    delete_expired_openid_tokens,
    delete_expired_validation_sessions,
)
log = Logger()


class ExpiredRowCleanup:
    """Deletes expired sessions and tokens. `start` it, and `stop` it before the database closes."""

    def __init__(self, db: Database, clock: IReactorTime) -> None:
        self._db = db
        self._clock = clock
        self._sweeping = PeriodicTask(
            clock, SWEEP_SECONDS, self.sweep, name="the deletion of what has expired"
        )

    def start(self) -> None:
        """Begin to sweep every hour."""
        self._sweeping.start()

    def stop(self) -> Deferred[None]:
        """Sweep no more; fires when the present sweep has ended."""
        return self._sweeping.stop()

    async def sweep(self) -> None:
        """Delete what has expired by now; a failure is for the next time to mend."""
        for delete_expired in SWEEPS:
            try:
                await self._db.run(delete_expired, now_ms(self._clock))
            except Exception as error:
                log.warn("could not delete what has expired: {error}", error=error)

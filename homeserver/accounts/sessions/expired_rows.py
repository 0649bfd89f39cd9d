"""The cleanup of expired rows, once an hour."""

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from homeserver.concurrency.clock import now_ms
from homeserver.concurrency.periodic import PeriodicTask
from homeserver.storage.accounts.authentication_sessions import (
    delete_expired_authentication_sessions,
)
from homeserver.storage.accounts.delayed_events import delete_expired_delayed_events
from homeserver.storage.accounts.login_tokens import delete_expired_login_tokens
from homeserver.storage.accounts.openid_tokens import delete_expired_openid_tokens
from homeserver.storage.accounts.validation_sessions import delete_expired_validation_sessions
from homeserver.storage.browser_sessions.browser_sessions import delete_expired_browser_sessions
from homeserver.storage.browser_sessions.cross_signing_resets import (
    delete_expired_cross_signing_resets,
)
from homeserver.storage.database.database import Database
from homeserver.storage.oauth.cleanup import delete_expired_oauth_rows

CLEANUP_SECONDS = 3600.0
DELETIONS = (
    delete_expired_authentication_sessions,
    delete_expired_browser_sessions,
    delete_expired_cross_signing_resets,
    delete_expired_delayed_events,
    delete_expired_login_tokens,
    delete_expired_oauth_rows,
    delete_expired_openid_tokens,
    delete_expired_validation_sessions,
)
log = Logger()


class ExpiredRowCleanup:
    """Deletes expired sessions and tokens. `start` it, and `stop` it before the database closes."""

    def __init__(self, db: Database, clock: IReactorTime) -> None:
        self._db = db
        self._clock = clock
        self._cleaning = PeriodicTask(
            clock, CLEANUP_SECONDS, self.clean_up, name="the deletion of expired rows"
        )

    def start(self) -> None:
        """Begin to clean up every hour."""
        self._cleaning.start()

    def stop(self) -> Deferred[None]:
        """Clean up no more; fires when the current run has ended."""
        return self._cleaning.stop()

    async def clean_up(self) -> None:
        """Delete expired rows; what fails is retried at the next run."""
        for delete_expired in DELETIONS:
            try:
                await self._db.run(delete_expired, now_ms(self._clock))
            except Exception as error:
                log.warn("could not delete expired rows: {error}", error=error)

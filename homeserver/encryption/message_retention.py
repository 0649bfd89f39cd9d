"""How long messages wait for devices and for other servers that do not come back.

Spec: https://spec.matrix.org/v1.19/client-server-api/#send-to-device-messaging
"""

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from homeserver.concurrency.clock import Clock, wall_seconds
from homeserver.concurrency.periodic import PeriodicTask
from homeserver.config.settings import EncryptionSettings
from homeserver.storage.database.database import Database
from homeserver.storage.encryption.outgoing_to_device import delete_outgoing
from homeserver.storage.encryption.to_device import (
    delete_excess_messages,
    delete_old_messages,
    delete_old_received,
    delete_old_transactions,
)
from homeserver.streams.positions import position_at

CLEANUP_SECONDS = 3600.0
DAY_SECONDS = 86_400
TRANSACTION_SECONDS = DAY_SECONDS  # in which a client may repeat a request
OUTGOING_SECONDS = 30 * DAY_SECONDS  # that messages wait for an unavailable server
MAX_OUTGOING = 100_000  # messages that wait for one server
RECEIVED_SECONDS = 14 * DAY_SECONDS  # in which another server may repeat a message
MAX_DELETED = 10_000  # rows of one statement
log = Logger()


class MessageRetention:
    """Deletes messages that have waited too long, or of which a device has too many."""

    def __init__(self, db: Database, clock: Clock, settings: EncryptionSettings) -> None:
        self._db = db
        self._clock = clock
        self._settings = settings
        self._cleaning = PeriodicTask(
            clock, CLEANUP_SECONDS, self.clean_up, name="the deletion of old messages to devices"
        )

    def start(self) -> None:
        """Begin to clean up every hour."""
        self._cleaning.start()

    def stop(self) -> Deferred[None]:
        """Clean up no more; fires when the current run has ended."""
        return self._cleaning.stop()

    async def clean_up(self) -> None:
        """Delete what is too old, and the oldest of what is too much, a part at a time."""
        now = wall_seconds(self._clock)
        oldest = position_at(now - self._settings.to_device_days * DAY_SECONDS)
        await self._db.run(delete_old_transactions, position_at(now - TRANSACTION_SECONDS))
        await self._db.run(delete_old_received, position_at(now - RECEIVED_SECONDS))
        outgoing = position_at(now - OUTGOING_SECONDS)
        for server, number in (await self._db.run(delete_outgoing, outgoing, MAX_OUTGOING)).items():
            log.warn("deleted {count} messages to devices at {server}", count=number, server=server)
        deleted, part = 0, MAX_DELETED
        while part == MAX_DELETED:
            part = await self._db.run(delete_old_messages, oldest, MAX_DELETED)
            deleted += part
        deleted += await self._db.run(delete_excess_messages, self._settings.to_device_messages)
        if deleted:
            log.info("deleted {count} old messages to devices", count=deleted)

"""The outbox of messages to devices of users of other servers.

The messages of a local user's request are rows that are written with it (`ToDevice.send`). They are
sent in the order of the log. A message keeps its `message_id` however often it is sent.

Spec: https://spec.matrix.org/v1.19/server-server-api/#send-to-device-messaging
"""

from collections.abc import Iterator, Sequence
from typing import Any

from federation.sending.edu_outbox import OutboxItem, OutboxPage, encode_edu
from federation.sending.outbox_deletions import OutboxDeletions
from homeserver.encryption.changes import ToDeviceMessagesQueued
from homeserver.protocol.event_types import DIRECT_TO_DEVICE
from homeserver.storage.database.database import Database
from homeserver.storage.encryption.outgoing_to_device import (
    DELETE_OUTGOING,
    oldest_outgoing,
    outgoing_destinations,
)
from homeserver.streams.log import Log

MAX_BYTES = 524_288  # of the messages in one transaction, beyond the first


class ToDeviceOutbox:
    """The messages for all destinations."""

    def __init__(self, db: Database, log: Log) -> None:
        self._db = db
        self._deletions = OutboxDeletions(log, DELETE_OUTGOING)

    async def destinations(self) -> list[str]:
        """The destinations for which messages wait."""
        return await self._db.run(outgoing_destinations)

    def select(self, entries: Sequence[Any]) -> Iterator[str]:
        """The destinations of messages in log entries."""
        for entry in entries:
            if isinstance(entry, ToDeviceMessagesQueued):
                yield entry.destination

    async def load(self, destination: str, limit: int) -> OutboxPage:
        """The oldest messages for a destination."""
        await self._deletions.written(destination)
        page = await self._db.run(oldest_outgoing, destination, limit, MAX_BYTES)
        items = [
            OutboxItem(row.position, (encode_edu(DIRECT_TO_DEVICE, row.edu),)) for row in page.rows
        ]
        return OutboxPage(items, page.has_more)

    def sent(self, destination: str, items: Sequence[OutboxItem]) -> None:
        """Delete messages that a destination has."""
        self._deletions.delete(destination, items)

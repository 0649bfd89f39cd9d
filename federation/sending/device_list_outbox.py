"""The outbox of changes of device lists: what other servers receive of a local user's devices.

The changes of a user are a chain of `stream_id`s, each with the one before as its `prev_id`. Its
content is that of the moment at which it is sent. Cross-signing keys have an EDU of their own,
which has no place in the chain; a change of them has, so an EDU with an unchanged device follows
it. Without it, the next change would look like a gap to each receiver.

Spec: https://spec.matrix.org/v1.19/server-server-api/#device-management
"""

from collections.abc import Iterator, Sequence
from typing import Any

from twisted.logger import Logger

from federation.sending.edu_outbox import OutboxItem, OutboxPage, encode_edu
from federation.sending.outbox_deletions import OutboxDeletions
from homeserver.encryption.changes import DeviceListsQueued
from homeserver.encryption.device_directory import DeviceDirectory
from homeserver.encryption.user_devices import MASTER, SELF_SIGNING, UserDevices
from homeserver.protocol.event_types import (
    DEVICE_LIST_UPDATE,
    SIGNING_KEY_UPDATE,
    UNSTABLE_SIGNING_KEY_UPDATE,
)
from homeserver.protocol.signing.canonical_json import NotCanonical
from homeserver.storage.database.database import Database
from homeserver.storage.encryption.device_list_outbox import (
    DELETE_QUEUED,
    device_list_destinations,
    oldest_device_lists,
)
from homeserver.storage.encryption.device_lists import DeviceListRow
from homeserver.streams.log import Log

MAX_CHANGES = 15  # in one transaction; a change of cross-signing keys is three EDUs
log = Logger()


class DeviceListOutbox:
    """The changes for all destinations."""

    def __init__(self, db: Database, log: Log, directory: DeviceDirectory) -> None:
        self._db = db
        self._directory = directory
        self._deletions = OutboxDeletions(log, DELETE_QUEUED)

    async def destinations(self) -> list[str]:
        """The destinations for which changes wait."""
        return await self._db.run(device_list_destinations)

    def select(self, entries: Sequence[Any]) -> Iterator[str]:
        """The destinations of changes in log entries."""
        for entry in entries:
            if isinstance(entry, DeviceListsQueued):
                yield from entry.destinations

    async def load(self, destination: str, limit: int) -> OutboxPage:
        """The oldest changes for a destination."""
        await self._deletions.written(destination)
        most = min(limit, MAX_CHANGES)
        rows = await self._db.run(oldest_device_lists, destination, most)
        users = await self._directory.of_all({row.user_id for row in rows})
        items = [OutboxItem(row.position, _encoded(row, users[row.user_id])) for row in rows]
        return OutboxPage(items, len(rows) == most)

    def sent(self, destination: str, items: Sequence[OutboxItem]) -> None:
        """Delete changes that a destination has."""
        self._deletions.delete(destination, items)


def _encoded(row: DeviceListRow, user: UserDevices) -> tuple[bytes, ...]:
    try:
        return tuple(encode_edu(edu_type, content) for edu_type, content in _edus(row, user))
    except NotCanonical:
        # It must not keep the destination from all others.
        log.failure("the device list of {user} cannot be sent", user=row.user_id)
        return ()


def _edus(row: DeviceListRow, user: UserDevices) -> Iterator[tuple[str, dict[str, Any]]]:
    """The EDUs of a change: type and content."""
    if row.device_id is not None:
        yield DEVICE_LIST_UPDATE, _device_update(row, user, row.device_id)
        return
    keys: dict[str, Any] = {
        f"{usage}_key": user.cross_signing[usage]
        for usage in (MASTER, SELF_SIGNING)
        if usage in user.cross_signing
    }
    if keys:
        for edu_type in (SIGNING_KEY_UPDATE, UNSTABLE_SIGNING_KEY_UPDATE):
            yield edu_type, {"user_id": row.user_id, **keys}
    for device_id in user.devices:
        yield DEVICE_LIST_UPDATE, _device_update(row, user, device_id)
        break


def _device_update(row: DeviceListRow, user: UserDevices, device_id: str) -> dict[str, Any]:
    content: dict[str, Any] = {
        "user_id": row.user_id,
        "device_id": device_id,
        "stream_id": row.stream_id,
        "prev_id": [] if row.previous_id is None else [row.previous_id],
    }
    device = user.devices.get(device_id)
    if device is None:
        return {**content, "deleted": True}
    if device.display_name is not None:
        content["device_display_name"] = device.display_name
    if device.keys is not None:
        content["keys"] = device.keys
    return content

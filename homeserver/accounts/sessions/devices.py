"""Devices: the log-ins of a user; listing, naming and removing them.

Changes go through the log, for its subscribers: the tokens of a removed device end at once
(`access_tokens.py`), and users in shared rooms learn that devices changed. What must be durable
together with a change is added by its `DeviceCompanion`s.

Spec: https://spec.matrix.org/v1.19/client-server-api/#device-management
"""

from collections.abc import Sequence
from typing import Protocol

import msgspec
from msgspec.structs import replace
from twisted.internet.defer import Deferred

from homeserver.accounts.sessions.last_seen import LastSeen
from homeserver.concurrency.keyed_locks import KeyedLocks
from homeserver.protocol.errors import InvalidParam, NotFound
from homeserver.storage.accounts.devices import (
    DELETE_DEVICE,
    RENAME_DEVICE,
    Device,
    devices_of,
    find_device,
)
from homeserver.storage.database.batch import Row
from homeserver.storage.database.database import Database
from homeserver.streams.log import Log

MAX_DEVICE_ID_BYTES = 255
MAX_DISPLAY_NAME_BYTES = 1024


class DeviceAdded(msgspec.Struct, frozen=True):
    """A user logged in to a device that they did not have before."""

    position: int
    user_id: str
    device_id: str


class DevicesRemoved(msgspec.Struct, frozen=True):
    """A user logged out of these devices, or removed them."""

    position: int
    user_id: str
    device_ids: tuple[str, ...]


class DeviceRenamed(msgspec.Struct, frozen=True):
    """A user gave a device another display name."""

    position: int
    user_id: str
    device_id: str


DeviceChange = DeviceAdded | DevicesRemoved | DeviceRenamed


class DeviceCompanion(Protocol):
    """What changes together with the devices of a user, all or nothing."""

    async def prepare(self, user_id: str) -> None:
        """Load what `follow` needs."""

    def follow(self, change: DeviceChange) -> None:
        """Append log entries after that of a change; without waiting, so all are one commit."""


class Devices:
    """The devices of local users.

    `key_locks`, by user, are held from a check to the end of the write that relies on it, for what
    identifies keys: device ids that could be public keys, identity keys, cross-signing keys, and
    signatures of these.
    """

    def __init__(self, db: Database, log: Log, last_seen: LastSeen) -> None:
        self.key_locks: KeyedLocks[str] = KeyedLocks()
        self._companions: list[DeviceCompanion] = []
        self._db = db
        self._log = log
        self._last_seen = last_seen

    def accompany(self, companion: DeviceCompanion) -> None:
        """Have a companion called with each change from now on."""
        self._companions.append(companion)

    async def all_of(self, user_id: str) -> list[Device]:
        """The devices of a user, oldest first."""
        devices = await self._db.run(devices_of, user_id)
        return [self._as_seen(user_id, device) for device in devices]

    async def get(self, user_id: str, device_id: str) -> Device:
        """One device. Raises `NotFound`."""
        device = await self._db.run(find_device, user_id, device_id)
        if device is None:
            raise NotFound("No such device")
        return self._as_seen(user_id, device)

    async def rename(self, user_id: str, device_id: str, display_name: str) -> None:
        """Set the display name of a device. Raises `NotFound` and `InvalidParam`."""
        check_display_name(display_name)
        device = await self.get(user_id, device_id)
        if device.display_name == display_name:
            return
        await self._prepare(user_id)
        entry = DeviceRenamed(self._log.next_position(), user_id, device_id)
        await self._append(entry, [RENAME_DEVICE.row(user_id, device_id, display_name)])

    async def added(self, user_id: str, device_id: str) -> None:
        """Publish that a user has a new device, which is stored already."""
        await self._prepare(user_id)
        await self._append(DeviceAdded(self._log.next_position(), user_id, device_id), ())

    async def remove(self, user_id: str, device_ids: Sequence[str]) -> None:
        """Remove devices and their data; unknown ones are ignored."""
        if not device_ids:
            return
        self._log.check_open()
        await self._prepare(user_id)
        entry = DevicesRemoved(self._log.next_position(), user_id, tuple(device_ids))
        rows = [DELETE_DEVICE.row(user_id, device_id) for device_id in device_ids]
        await self._append(entry, rows)

    async def remove_all(self, user_id: str, *, but: str | None = None) -> None:
        """Remove all devices of a user, or all but one."""
        devices = await self._db.run(devices_of, user_id)
        await self.remove(
            user_id, [device.device_id for device in devices if device.device_id != but]
        )

    async def _prepare(self, user_id: str) -> None:
        for companion in self._companions:
            await companion.prepare(user_id)

    def _append(self, entry: DeviceChange, rows: Sequence[Row]) -> "Deferred[None]":
        written = self._log.append(entry, rows)
        for companion in self._companions:
            companion.follow(entry)
        return written

    def _as_seen(self, user_id: str, device: Device) -> Device:
        seen = self._last_seen.find(user_id, device.device_id)
        if seen is None:
            return device
        return replace(
            device,
            last_seen_ms=seen.at_ms,
            last_seen_ip=seen.address,
            last_seen_agent=seen.agent,
        )


def check_device_id(device_id: str) -> None:
    """Raise `InvalidParam` for an invalid device id from a client."""
    if not device_id or len(device_id.encode()) > MAX_DEVICE_ID_BYTES:
        raise InvalidParam(f"A device ID has 1 to {MAX_DEVICE_ID_BYTES} bytes")
    if any(character < " " for character in device_id):
        raise InvalidParam("A device ID has no control characters")


def check_display_name(display_name: str) -> None:
    """Raise `InvalidParam` where the display name of a device is too long."""
    if len(display_name.encode()) > MAX_DISPLAY_NAME_BYTES:
        raise InvalidParam(f"A device name must not exceed {MAX_DISPLAY_NAME_BYTES} bytes")

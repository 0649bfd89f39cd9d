"""Writes the device lists of remote users: one change of a user after the other.

The rows of a change and its `DeviceListChanged` are one commit. The caller that changes a list
holds its lock, and waits until the change is published, so the next one finds it in the
`DeviceDirectory`.

Spec: https://spec.matrix.org/v1.19/server-server-api/#device-management
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager

from homeserver.concurrency.keyed_locks import KeyedLocks
from homeserver.encryption.device_directory import DeviceDirectory
from homeserver.encryption.device_lists import DeviceLists
from homeserver.encryption.user_devices import UserDevices, build_user_devices
from homeserver.protocol.encryption.remote_keys import RemoteDevice, RemoteDeviceList, RemoteKeys
from homeserver.storage.database.batch import Row
from homeserver.storage.encryption.cross_signing import (
    DELETE_CROSS_SIGNING_KEY,
    SET_CROSS_SIGNING_KEY,
    CrossSigningRow,
)
from homeserver.storage.encryption.device_keys import DeviceRow
from homeserver.storage.encryption.remote_devices import (
    DELETE_REMOTE_DEVICE,
    DELETE_REMOTE_LIST,
    SET_REMOTE_DEVICE,
    SET_REMOTE_LIST,
)
from homeserver.streams.log import Log


class RemoteListStore:
    """The stored lists of remote users. All but `hold` need the lock of the user."""

    def __init__(self, log: Log, directory: DeviceDirectory, device_lists: DeviceLists) -> None:
        self._log = log
        self._directory = directory
        self._device_lists = device_lists
        self._changing: KeyedLocks[str] = KeyedLocks()

    def hold(self, user_id: str) -> AbstractAsyncContextManager[None]:
        """The lock of a user, as a context."""
        return self._changing.hold(user_id)

    async def find(self, user_id: str) -> UserDevices:
        """What is stored about a user."""
        return await self._directory.of(user_id)

    async def prepare(self, user_id: str) -> None:
        """Load what `record` needs; to be awaited right before it. Raises `Unavailable`."""
        self._log.check_open()
        await self._device_lists.prepare(user_id)

    async def record(self, user_id: str, rows: Sequence[Row], device_id: str | None = None) -> None:
        """Write a change, and notify the clients that follow the user's devices."""
        self._device_lists.record(user_id, device_id, rows)
        await self._log.written()


def replacing_rows(
    user_id: str, known: UserDevices, fetched: RemoteDeviceList, *, is_stale: bool
) -> list[Row]:
    """The rows that make a whole list of what is stored."""
    keys = fetched.keys
    rows = [SET_REMOTE_LIST.row(user_id, fetched.stream_id, is_stale)]
    rows += [
        DELETE_REMOTE_DEVICE.row(user_id, each)
        for each in known.devices
        if each not in keys.devices
    ]
    rows += [device_row(user_id, each, device) for each, device in keys.devices.items()]
    rows += [
        DELETE_CROSS_SIGNING_KEY.row(user_id, usage)
        for usage in known.cross_signing
        if usage not in keys.cross_signing
    ]
    return rows + cross_signing_rows(user_id, keys.cross_signing)


def deleting_rows(user_id: str, known: UserDevices) -> list[Row]:
    """The rows that delete all that is stored about a user."""
    return [
        DELETE_REMOTE_LIST.row(user_id),
        *(DELETE_REMOTE_DEVICE.row(user_id, each) for each in known.devices),
        *(DELETE_CROSS_SIGNING_KEY.row(user_id, usage) for usage in known.cross_signing),
    ]


def device_row(user_id: str, device_id: str, device: RemoteDevice) -> Row:
    """The row that stores one device."""
    return SET_REMOTE_DEVICE.row(user_id, device_id, device.display_name, device.keys)


def cross_signing_rows(user_id: str, keys: Mapping[str, bytes]) -> list[Row]:
    """The rows that store cross-signing keys, given by usage.

    The position is for user-signing keys, which are never those of remote users.
    """
    return [SET_CROSS_SIGNING_KEY.row(user_id, *each, 0) for each in keys.items()]


def shown_devices(user_id: str, keys: RemoteKeys) -> UserDevices:
    """The keys of a remote user as clients see them."""
    return build_user_devices(
        [
            DeviceRow(user_id, device_id, device.display_name, device.keys)
            for device_id, device in keys.devices.items()
        ],
        [CrossSigningRow(user_id, usage, key) for usage, key in keys.cross_signing.items()],
    )

"""Dehydrated devices: devices without a client that receive keys for a user who is logged out.

A client stores such a device, encrypted, with its public keys. Others encrypt for it as for any
device. When the user logs in again, the client decrypts it and reads the messages that it received.

Spec: https://github.com/matrix-org/matrix-spec-proposals/pull/3814
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from homeserver.accounts.sessions.devices import Devices, check_device_id, check_display_name
from homeserver.accounts.sessions.login_sessions import LoginSessions
from homeserver.accounts.sessions.requester import Requester
from homeserver.concurrency.keyed_locks import KeyedLocks
from homeserver.encryption.device_inboxes import DeviceInboxes, Messages
from homeserver.encryption.key_uploads import KeyUploads, check_upload
from homeserver.protocol.errors import Forbidden, InvalidParam, NotFound, TooLarge
from homeserver.protocol.json_elements import decode_or_none
from homeserver.storage.accounts.devices import find_device
from homeserver.storage.database.database import Connection, Database
from homeserver.storage.encryption.dehydrated_devices import (
    DehydratedDevice,
    find_dehydrated_device,
    set_dehydrated_device,
)
from homeserver.streams.log import Log

MAX_DATA_BYTES = 65_536


class NewDehydratedDevice(msgspec.Struct, frozen=True):
    """A device to be stored: `device_data` is a JSON object, the keys are as in `KeyUploads`."""

    device_id: str
    device_data: msgspec.Raw
    display_name: str | None
    device_keys: Mapping[str, Any]
    one_time_keys: Mapping[str, Any]
    fallback_keys: Mapping[str, Any]


class DehydratedDevices:
    """The dehydrated devices of local users, at most one for each."""

    def __init__(
        self,
        db: Database,
        log: Log,
        devices: Devices,
        sessions: LoginSessions,
        uploads: KeyUploads,
        inboxes: DeviceInboxes,
    ) -> None:
        self._db = db
        self._log = log
        self._devices = devices
        self._sessions = sessions
        self._uploads = uploads
        self._inboxes = inboxes
        self._changing: KeyedLocks[str] = KeyedLocks()

    async def put(self, user_id: str, new: NewDehydratedDevice) -> None:
        """Store a device in place of the one that the user had.

        The request may be repeated: the same device again keeps what it received. If it is cut off
        by a crash, the user has no dehydrated device, or one without keys, which the next request
        replaces. Raises `InvalidParam` for the id of an ordinary device, and what uploads raise.
        """
        _check(new)
        caller = Requester(user_id, new.device_id)
        keys = new.device_keys, new.one_time_keys, new.fallback_keys
        check_upload(caller, *keys)
        async with self._changing.hold(user_id):
            before = await self._db.run(find_dehydrated_device, user_id)
            if before is None or before.device_id != new.device_id:
                if await self._db.run(find_device, user_id, new.device_id) is not None:
                    raise InvalidParam("You have an ordinary device with this ID")
                await self._devices.remove(user_id, [] if before is None else [before.device_id])
            if await self._db.transaction(self._store, user_id, new):
                await self._devices.added(user_id, new.device_id)
            await self._uploads.upload(caller, *keys)

    async def get(self, user_id: str) -> DehydratedDevice:
        """The device of a user. Raises `NotFound`."""
        device = await self._db.run(find_dehydrated_device, user_id)
        if device is None:
            raise NotFound("There is no dehydrated device")
        return device

    async def delete(self, user_id: str) -> str:
        """Remove the device of a user; its id. Raises `NotFound`."""
        async with self._changing.hold(user_id):
            device = await self.get(user_id)
            await self._devices.remove(user_id, [device.device_id])
        return device.device_id

    async def messages(self, user_id: str, device_id: str, after: int) -> Messages:
        """Messages that the device received above a position; they stay until it is removed.

        Raises `Forbidden` if it is not the user's dehydrated device.
        """
        device = await self._db.run(find_dehydrated_device, user_id)
        if device is None or device.device_id != device_id:
            raise Forbidden("This is not your dehydrated device")
        return await self._inboxes.messages((user_id, device_id), after, self._log.position)

    async def _store(self, db: Connection, user_id: str, new: NewDehydratedDevice) -> bool:
        is_new = await self._sessions.add_device_within(
            db, user_id, new.device_id, new.display_name
        )
        await set_dehydrated_device(db, user_id, new.device_id, bytes(new.device_data))
        return is_new


def _check(new: NewDehydratedDevice) -> None:
    check_device_id(new.device_id)
    if new.display_name is not None:
        check_display_name(new.display_name)
    if len(bytes(new.device_data)) > MAX_DATA_BYTES:
        raise TooLarge(f"A dehydrated device has at most {MAX_DATA_BYTES} bytes")
    if not isinstance(decode_or_none(new.device_data), dict):
        raise InvalidParam("device_data is an object")

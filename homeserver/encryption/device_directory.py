"""The device directory: the devices and public keys of users, cached for all who ask.

Spec: https://spec.matrix.org/v1.19/client-server-api/#tracking-the-device-list-for-a-user
"""

from collections.abc import AsyncGenerator, Collection, Sequence
from typing import Any

import msgspec

from homeserver.accounts.sessions.devices import DeviceAdded, DeviceRenamed, DevicesRemoved
from homeserver.concurrency.lru_cache import LruCache
from homeserver.encryption.changes import DeviceListChanged, UserSignaturesChanged
from homeserver.encryption.user_devices import UserDevices, build_user_devices
from homeserver.rooms.events.local_server import LocalServer
from homeserver.storage.database.database import Connection, Database
from homeserver.storage.encryption.cross_signing import (
    CrossSigningRow,
    SignatureRow,
    cross_signing_keys_of,
    own_signatures_of,
)
from homeserver.storage.encryption.device_keys import DeviceRow, local_devices_of
from homeserver.storage.encryption.device_lists import device_lists_of
from homeserver.storage.encryption.remote_devices import remote_devices_of, remote_lists_of

MAX_CACHED_BYTES = 64 * 1_048_576
USERS_AT_ONCE = 100  # users who are read in one query


class _Rows(msgspec.Struct):
    """What is stored about one user."""

    devices: list[DeviceRow] = msgspec.field(default_factory=list)
    cross_signing: list[CrossSigningRow] = msgspec.field(default_factory=list)
    signatures: list[SignatureRow] = msgspec.field(default_factory=list)
    stream_id: int | None = None
    is_stale: bool = False

    def build(self) -> UserDevices:
        return build_user_devices(
            self.devices,
            self.cross_signing,
            self.signatures,
            self.stream_id,
            is_stale=self.is_stale,
        )


class DeviceDirectory:
    """The devices of local users, and what is known here of those of remote users.

    `apply` is to be subscribed to the log.
    """

    def __init__(self, db: Database, local_server: LocalServer) -> None:
        self._db = db
        self._is_local = local_server.is_local
        self._cache: LruCache[str, UserDevices] = LruCache(
            "user_devices", MAX_CACHED_BYTES, size_of=lambda _, devices: devices.size
        )
        # For each load in progress the users who changed meanwhile: it may have read older rows.
        self._changed_during: dict[object, set[str]] = {}

    def apply(self, entries: Sequence[Any]) -> None:
        """Forget users whose devices or keys changed (called by the log)."""
        for entry in entries:
            if isinstance(entry, DeviceListChanged | DeviceAdded | DeviceRenamed | DevicesRemoved):
                self._forget(entry.user_id)
            elif isinstance(entry, UserSignaturesChanged) and entry.signer in entry.user_ids:
                self._forget(entry.signer)

    def _forget(self, user_id: str) -> None:
        self._cache.pop(user_id)
        for changed in self._changed_during.values():
            changed.add(user_id)

    def find(self, user_id: str) -> UserDevices | None:
        """The devices of a user, if they are in memory."""
        return self._cache.get(user_id)

    async def of(self, user_id: str) -> UserDevices:
        """The devices of one user; of an unknown user, none."""
        return (await self.of_all([user_id]))[user_id]

    async def of_all(self, user_ids: Collection[str]) -> dict[str, UserDevices]:
        """The devices of some users; of unknown users, none."""
        found: dict[str, UserDevices] = {}
        async for part in self.in_parts(user_ids):
            found |= part
        return found

    async def in_parts(
        self, user_ids: Collection[str]
    ) -> AsyncGenerator[dict[str, UserDevices], None]:
        """The same a part at a time, those in memory first: of many users it may be a lot."""
        found: dict[str, UserDevices] = {}
        missing: list[str] = []
        for user_id in user_ids:
            devices = self._cache.get(user_id)
            if devices is None:
                missing.append(user_id)
            else:
                found[user_id] = devices
        if found:
            yield found
        for at in range(0, len(missing), USERS_AT_ONCE):
            yield await self._load(missing[at : at + USERS_AT_ONCE])

    async def _load(self, user_ids: Sequence[str]) -> dict[str, UserDevices]:
        changed: set[str] = set()
        load = object()  # two sets may be equal, and a load must end its own
        self._changed_during[load] = changed
        try:
            rows = await self._db.run(self._read, user_ids)
        finally:
            del self._changed_during[load]
        loaded = {user_id: rows[user_id].build() for user_id in user_ids}
        for user_id, devices in loaded.items():
            if user_id not in changed:
                self._cache.put(user_id, devices)
        return loaded

    async def _read(self, db: Connection, user_ids: Sequence[str]) -> dict[str, _Rows]:
        local = [user_id for user_id in user_ids if self._is_local(user_id)]
        remote = [user_id for user_id in user_ids if not self._is_local(user_id)]
        rows = {user_id: _Rows() for user_id in user_ids}
        # The stream ids first: what changes meanwhile is in the devices, and its update follows.
        for changed in await device_lists_of(db, local) if local else ():
            rows[changed.user_id].stream_id = changed.stream_id
        for stored in await remote_lists_of(db, remote) if remote else ():
            rows[stored.user_id].stream_id = stored.stream_id
            rows[stored.user_id].is_stale = stored.is_stale
        for device in await local_devices_of(db, local) if local else ():
            rows[device.user_id].devices.append(device)
        for device in await remote_devices_of(db, remote) if remote else ():
            rows[device.user_id].devices.append(device)
        for key in await cross_signing_keys_of(db, user_ids):
            rows[key.user_id].cross_signing.append(key)
        for signature in await own_signatures_of(db, local) if local else ():
            rows[signature.user_id].signatures.append(signature)
        return rows

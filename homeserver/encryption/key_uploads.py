"""Uploading the keys of a device: identity keys, one-time keys, fallback keys.

Spec: https://spec.matrix.org/v1.19/client-server-api/#uploading-keys
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.concurrency.keyed_locks import KeyedLocks
from homeserver.encryption.changes import ClaimableKeysChanged
from homeserver.encryption.device_directory import DeviceDirectory
from homeserver.encryption.device_lists import DeviceLists
from homeserver.encryption.key_counts import DeviceKeyCounts
from homeserver.encryption.one_time_keys import OneTimeKeys
from homeserver.protocol.encryption.key_objects import (
    MAX_LIST_BYTES,
    encode_claimable_key,
    encode_device_keys,
    is_same_key,
    split_key_name,
)
from homeserver.protocol.encryption.key_signatures import key_name, signed_part
from homeserver.protocol.errors import InvalidParam, UserLimitExceeded
from homeserver.storage.database.batch import Row
from homeserver.storage.database.database import Database
from homeserver.storage.encryption.cross_signing import (
    DELETE_SIGNATURES_BY_KEY,
    DELETE_SIGNATURES_OF_KEY,
)
from homeserver.storage.encryption.device_keys import SET_DEVICE_KEYS, find_device_keys
from homeserver.storage.encryption.one_time_keys import (
    INSERT_ONE_TIME_KEY,
    SET_FALLBACK_KEY,
    find_one_time_keys,
)
from homeserver.streams.log import Log

MAX_ONE_TIME_KEYS = 10_000  # of one device
MAX_FALLBACK_KEYS = 20  # algorithms of one device


class CheckedKeys(msgspec.Struct, frozen=True):
    """The keys of an upload, as they are stored; claimable keys by algorithm and key id."""

    device: tuple[str, str]
    identity: bytes | None
    one_time: Mapping[tuple[str, str], bytes]
    fallback: Mapping[tuple[str, str], bytes]


def check_upload(
    caller: Requester,
    device_keys: Mapping[str, Any] | None,
    one_time_keys: Mapping[str, Any],
    fallback_keys: Mapping[str, Any],
) -> CheckedKeys:
    """Check the keys that a device uploads. Raises `BadJson`, `InvalidParam` and `TooLarge`."""
    if caller.device_id is None:
        raise InvalidParam("Only a device can upload keys")
    device = caller.user_id, caller.device_id
    identity = None if device_keys is None else encode_device_keys(device_keys, *device)
    one_time, fallback = _encoded(one_time_keys), _encoded(fallback_keys)
    algorithms = [algorithm for algorithm, _ in fallback]
    if len(set(algorithms)) < len(algorithms) or len(algorithms) > MAX_FALLBACK_KEYS:
        raise InvalidParam("There is at most one fallback key for each algorithm")
    return CheckedKeys(device, identity, one_time, fallback)


class KeyUploads:
    """Stores the keys that devices upload."""

    def __init__(
        self,
        db: Database,
        log: Log,
        device_lists: DeviceLists,
        one_time_keys: OneTimeKeys,
        counts: DeviceKeyCounts,
        directory: DeviceDirectory,
        key_locks: KeyedLocks[str],
    ) -> None:
        self._db = db
        self._log = log
        self._device_lists = device_lists
        self._one_time_keys = one_time_keys
        self._counts = counts
        self._directory = directory
        self._key_locks = key_locks
        self._uploading: KeyedLocks[tuple[str, str]] = KeyedLocks()

    async def upload(
        self,
        caller: Requester,
        device_keys: Mapping[str, Any] | None,
        one_time_keys: Mapping[str, Any],
        fallback_keys: Mapping[str, Any],
    ) -> Mapping[str, int]:
        """Store keys of the caller's device; the number of one-time keys by algorithm afterwards.

        All of it is stored, or nothing. Raises `BadJson`, `InvalidParam`, `TooLarge` and
        `UserLimitExceeded`.
        """
        keys = check_upload(caller, device_keys, one_time_keys, fallback_keys)
        async with self._uploading.hold(keys.device):
            if keys.identity is None:
                await self._store(keys.device, None, keys.one_time, keys.fallback)
            else:
                # No signature of the keys that were there before is accepted meanwhile.
                async with self._key_locks.hold(caller.user_id):
                    await self._store(keys.device, keys.identity, keys.one_time, keys.fallback)
            return (await self._counts.of(keys.device)).one_time

    async def _store(
        self,
        device: tuple[str, str],
        identity: bytes | None,
        one_time: Mapping[tuple[str, str], bytes],
        fallback: Mapping[tuple[str, str], bytes],
    ) -> None:
        new = await self._new_one_time_keys(device, one_time)
        before = None if identity is None else await self._db.run(find_device_keys, *device)
        is_changed = identity != before
        if identity is not None and is_changed:
            await self._check_size(device, identity)
        self._log.check_open()
        if is_changed:
            await self._device_lists.prepare(device[0])
        position = self._log.next_position()
        rows: list[Row] = [
            INSERT_ONE_TIME_KEY.row(*device, algorithm, position, key_id, key)
            for (algorithm, key_id), key in new.items()
        ]
        rows += [
            SET_FALLBACK_KEY.row(*device, algorithm, key_id, key)
            for (algorithm, key_id), key in fallback.items()
        ]
        if is_changed:
            rows.append(SET_DEVICE_KEYS.row(*device, identity))
            if before is None or _signed_part(before) != _signed_part(identity):
                rows.append(DELETE_SIGNATURES_OF_KEY.row(*device))
                rows.append(DELETE_SIGNATURES_BY_KEY.row(device[0], key_name(device[1])))
        if not rows:
            return
        written = self._log.append(ClaimableKeysChanged(position, device[0], (device[1],)), rows)
        if is_changed:
            self._device_lists.record(*device)
        await written

    async def _check_size(self, device: tuple[str, str], identity: bytes) -> None:
        """Raise `UserLimitExceeded` for more than other servers take of the keys of one user."""
        known = await self._directory.of(device[0])
        replaced = len(known.encoded.get(device[1], b""))
        if len(known.device_keys) - replaced + len(identity) > MAX_LIST_BYTES:
            raise UserLimitExceeded(
                f"The devices of a user have at most {MAX_LIST_BYTES} bytes of keys"
            )

    async def _new_one_time_keys(
        self, device: tuple[str, str], one_time: Mapping[tuple[str, str], bytes]
    ) -> dict[tuple[str, str], bytes]:
        """The keys that the device does not have yet, and that nobody claimed lately.

        Raises `InvalidParam` for an id that another key has, and `UserLimitExceeded`.
        """
        if not one_time:
            return {}
        present = await self._db.run(find_one_time_keys, *device, [name[1] for name in one_time])
        new: dict[tuple[str, str], bytes] = {}
        for name, key in one_time.items():
            before = present.get(name)
            if before is None:
                if not self._one_time_keys.was_claimed((*device, *name)):
                    new[name] = key
            elif not is_same_key(before, key):
                # Clients recognise this text, which other servers have, too.
                raise InvalidParam(
                    f"One time key {':'.join(name)} already exists. "
                    f"Old key: {before.decode()}; new key: {key.decode()}"
                )
        count = sum((await self._counts.of(device)).one_time.values())
        if count + len(new) > MAX_ONE_TIME_KEYS:
            raise UserLimitExceeded(f"A device has at most {MAX_ONE_TIME_KEYS} one-time keys")
        return new


def _signed_part(keys: bytes | None) -> Any:
    return None if keys is None else signed_part(msgspec.json.decode(keys))


def _encoded(keys: Mapping[str, Any]) -> dict[tuple[str, str], bytes]:
    return {split_key_name(name): encode_claimable_key(name, key) for name, key in keys.items()}

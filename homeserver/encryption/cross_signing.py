"""Cross-signing keys of local users: uploading them, and deleting them with the account.

The master key and the self-signing key are shown to everybody, the user-signing key only to its
user. A key that is replaced takes with it the signatures that it made, and those that it bore.

Spec: https://spec.matrix.org/v1.19/client-server-api/#cross-signing
"""

from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from homeserver.concurrency.keyed_locks import KeyedLocks
from homeserver.encryption.changes import UserSignaturesChanged
from homeserver.encryption.device_directory import DeviceDirectory
from homeserver.encryption.device_lists import DeviceLists
from homeserver.encryption.user_devices import MASTER, SELF_SIGNING
from homeserver.protocol.encryption.cross_signing_keys import (
    CrossSigningKey,
    check_signed_by_master,
    parse_cross_signing_key,
    public_key_of,
)
from homeserver.protocol.encryption.key_signatures import key_name
from homeserver.protocol.errors import Forbidden, MissingParam
from homeserver.storage.database.batch import Row
from homeserver.storage.database.database import Database
from homeserver.storage.encryption.cross_signing import (
    DELETE_CROSS_SIGNING_KEY,
    DELETE_SIGNATURES_BY_KEY,
    DELETE_SIGNATURES_OF_KEY,
    SET_CROSS_SIGNING_KEY,
    cross_signing_keys_of,
)
from homeserver.streams.log import Log

SEEN_BY_OTHERS = (MASTER, SELF_SIGNING)

StoredKeys = Mapping[str, bytes]
"""The cross-signing keys of a user as canonical JSON, by usage."""


class ConfirmationNeeded(Exception):
    """Keys of a user who has a master key are replaced or added: the user must authenticate."""


class CrossSigning:
    """Stores the cross-signing keys of local users."""

    def __init__(
        self,
        db: Database,
        log: Log,
        directory: DeviceDirectory,
        device_lists: DeviceLists,
        key_locks: KeyedLocks[str],
    ) -> None:
        self._db = db
        self._log = log
        self._directory = directory
        self._device_lists = device_lists
        self._key_locks = key_locks

    async def upload(
        self, user_id: str, keys: Mapping[str, Mapping[str, Any]], *, is_confirmed: bool
    ) -> None:
        """Store keys of a user, given by usage: all of them, or none.

        Self-signing and user-signing keys that an uploaded master key has not signed are deleted.
        `is_confirmed` says that the user has authenticated for this request.

        Raises `ConfirmationNeeded`, what the checks of keys raise, `MissingParam` if there is no
        master key, and `Forbidden` for a key that is named like a device of the user.
        """
        given = {usage: parse_cross_signing_key(key, user_id, usage) for usage, key in keys.items()}
        async with self._key_locks.hold(user_id):
            stored = await self._stored(user_id)
            new = {usage: key for usage, key in given.items() if key.encoded != stored.get(usage)}
            _check_signatures(user_id, given, stored)
            await self._check_names(user_id, new.values())
            if not new:
                return
            if MASTER in stored and not is_confirmed:
                raise ConfirmationNeeded
            await self._replace(user_id, stored, new, _left_unsigned(stored, given))

    async def deactivated(self, user_id: str, erase: bool) -> None:
        """Delete all keys of a user whose account was deactivated, and all signatures by them."""
        async with self._key_locks.hold(user_id):
            stored = await self._stored(user_id)
            if stored:
                await self._replace(user_id, stored, {}, tuple(stored))

    async def _stored(self, user_id: str) -> StoredKeys:
        rows = await self._db.run(cross_signing_keys_of, [user_id])
        return {row.usage: bytes(row.key) for row in rows}

    async def _check_names(self, user_id: str, keys: Collection[CrossSigningKey]) -> None:
        """Devices and cross-signing keys are named alike in signatures."""
        devices = (await self._directory.of(user_id)).devices if keys else {}
        if any(key.public_key in devices for key in keys):
            raise Forbidden("The public key is the ID of one of the user's devices")

    async def _replace(
        self,
        user_id: str,
        stored: StoredKeys,
        new: Mapping[str, CrossSigningKey],
        deleted: Collection[str],
    ) -> None:
        await self._device_lists.prepare(user_id)
        self._log.check_open()
        position = self._log.next_position()
        rows = [
            SET_CROSS_SIGNING_KEY.row(user_id, usage, key.encoded, position)
            for usage, key in new.items()
        ]
        rows += [DELETE_CROSS_SIGNING_KEY.row(user_id, usage) for usage in deleted]
        for usage, encoded in stored.items():
            before = public_key_of(msgspec.json.decode(encoded))
            if usage in deleted or (usage in new and new[usage].public_key != before):
                rows += _deleted_signatures(user_id, before)
        # The user's own devices learn of each key, all others only of those that they see.
        written = self._log.append(UserSignaturesChanged(position, user_id, (user_id,)), rows)
        if any(usage in new or usage in deleted for usage in SEEN_BY_OTHERS):
            self._device_lists.record(user_id)
        await written


def _check_signatures(
    user_id: str, given: Mapping[str, CrossSigningKey], stored: StoredKeys
) -> None:
    if MASTER in given:
        master = given[MASTER].public_key
    elif MASTER in stored:
        master = public_key_of(msgspec.json.decode(stored[MASTER]))
    else:
        raise MissingParam("There is no master key")
    for usage, key in given.items():
        if usage != MASTER:
            check_signed_by_master(key, user_id, master)


def _left_unsigned(stored: StoredKeys, given: Mapping[str, CrossSigningKey]) -> Collection[str]:
    """The usages of the stored keys that the master key before the given one has signed."""
    if MASTER not in stored or MASTER not in given:
        return ()
    if public_key_of(msgspec.json.decode(stored[MASTER])) == given[MASTER].public_key:
        return ()
    return [usage for usage in stored if usage not in given]


def _deleted_signatures(user_id: str, public_key: str) -> list[Row]:
    return [
        DELETE_SIGNATURES_OF_KEY.row(user_id, public_key),
        DELETE_SIGNATURES_BY_KEY.row(user_id, key_name(public_key)),
    ]

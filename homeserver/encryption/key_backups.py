"""Key backups: the versions of a user's backup of room keys.

A user has one backup at a time, the current one: the newest that is not deleted. A new one takes
its place, and its keys stay readable until a client deletes it. Numbers of deleted versions are
never used again, so a device never takes a new backup for one that it knows.

Everything but the keys themselves (`backed_up_keys.py`) is here.

Spec: https://spec.matrix.org/v1.19/client-server-api/#server-side-key-backups
"""

from homeserver.concurrency.keyed_locks import KeyedLocks
from homeserver.encryption.key_set_deletion import KeySetDeletion
from homeserver.protocol.errors import InvalidParam, NotFound, TooLarge, UserLimitExceeded
from homeserver.storage.database.database import Connection, Database
from homeserver.storage.encryption.key_backups import (
    KeyBackup,
    create_backup,
    delete_backup,
    delete_backups_of,
    find_backup,
    find_current_backup,
    lock_backups,
    set_auth_data,
    was_created,
)

MAX_VERSIONS = 100  # of one user that are not deleted
MAX_AUTH_DATA_BYTES = 65_536
MAX_ALGORITHM_BYTES = 255
MAX_DIGITS = 18  # of a version

UNKNOWN = "Unknown backup version"


class KeyBackups:
    """The backups of local users.

    `writing` has the users whose backups are being changed: without it all changes of one user
    would wait for the lock in the database, each with a connection of the pool.
    """

    def __init__(self, db: Database, writing: KeyedLocks[str], deletion: KeySetDeletion) -> None:
        self._db = db
        self._writing = writing
        self._deletion = deletion

    async def create(self, user_id: str, algorithm: str, auth_data: bytes) -> str:
        """Create a backup, which becomes the current one, and return its version.

        Raises `InvalidParam`, `BadJson`, `TooLarge`, and `UserLimitExceeded`.
        """
        if not algorithm or len(algorithm.encode()) > MAX_ALGORITHM_BYTES:
            raise InvalidParam(f"`algorithm` has 1 to {MAX_ALGORITHM_BYTES} bytes")
        _check_auth_data(auth_data)
        async with self._writing.hold(user_id):
            return await self._db.transaction(_create, user_id, algorithm, auth_data)

    async def current(self, user_id: str) -> KeyBackup:
        """The current backup. Raises `NotFound`."""
        backup = await self._db.run(find_current_backup, user_id)
        if backup is None:
            raise NotFound("No current backup version")
        return backup

    async def get(self, user_id: str, version: str) -> KeyBackup:
        """One version that is not deleted. Raises `NotFound`."""
        number = parse_version(version)
        backup = None if number is None else await self._db.run(find_backup, user_id, number)
        if backup is None:
            raise NotFound(UNKNOWN)
        return backup

    async def update(self, user_id: str, version: str, algorithm: str, auth_data: bytes) -> None:
        """Replace the `auth_data` of a version.

        Raises `NotFound`, `InvalidParam` for another algorithm, `BadJson`, and `TooLarge`.
        """
        _check_auth_data(auth_data)
        backup = await self.get(user_id, version)
        if backup.algorithm != algorithm:
            raise InvalidParam("Algorithm does not match")
        if not await self._db.run(set_auth_data, user_id, backup.version, auth_data):
            raise NotFound(UNKNOWN)

    async def delete(self, user_id: str, version: str) -> None:
        """Delete a version with its keys; does nothing if it is deleted. Raises `NotFound`."""
        number = parse_version(version)
        if number is None or not await self._db.run(was_created, user_id, number):
            raise NotFound(UNKNOWN)
        async with self._writing.hold(user_id):
            key_set = await self._db.transaction(_delete, user_id, number)
        if key_set is not None:
            await self._deletion.delete(key_set)

    async def deactivated(self, user_id: str, erase: bool) -> None:
        """Delete all backups of a deactivated user, erased or not: no device can use them again."""
        async with self._writing.hold(user_id):
            key_sets = await self._db.transaction(_delete_all, user_id)
        for key_set in key_sets:
            await self._deletion.delete(key_set)


def parse_version(version: str) -> int | None:
    """The number of a version as clients have it, or `None` if it cannot be one."""
    is_number = version.isascii() and version.isdigit() and len(version) <= MAX_DIGITS
    # There is one way to write a version: "01" is none.
    return int(version) if is_number and not version.startswith("0") else None


def _check_auth_data(auth_data: bytes) -> None:
    if len(auth_data) > MAX_AUTH_DATA_BYTES:
        raise TooLarge(f"`auth_data` has at most {MAX_AUTH_DATA_BYTES} bytes")


async def _create(db: Connection, user_id: str, algorithm: str, auth_data: bytes) -> str:
    version = await create_backup(db, user_id, algorithm, auth_data, MAX_VERSIONS)
    if version is None:
        raise UserLimitExceeded(f"A user has at most {MAX_VERSIONS} backups; delete one first")
    return str(version)


async def _delete(db: Connection, user_id: str, version: int) -> int | None:
    await lock_backups(db, user_id)
    return await delete_backup(db, user_id, version)


async def _delete_all(db: Connection, user_id: str) -> list[int]:
    await lock_backups(db, user_id)
    return await delete_backups_of(db, user_id)

"""Backed up keys: uploading, reading and deleting the room keys in a key backup.

Each change is one transaction that locks the user's backups, so the keys of a version, its number
of keys and its `etag` agree at any time, after a crash too, and two devices that upload at the same
time lose nothing. Only a change of the keys changes the `etag`.

Spec: https://spec.matrix.org/v1.19/client-server-api/#server-side-key-backups
"""

from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence

import msgspec

from homeserver.concurrency.clock import Clock
from homeserver.concurrency.cooperative import build_cooperatively
from homeserver.concurrency.keyed_locks import KeyedLocks
from homeserver.encryption.key_backups import UNKNOWN, KeyBackups, parse_version
from homeserver.encryption.key_set_deletion import KeySetDeletion
from homeserver.protocol.encryption.key_backup_rules import KeyBackupData, is_replaced, rank
from homeserver.protocol.errors import (
    BadJson,
    NotFound,
    TooLarge,
    UserLimitExceeded,
    WrongRoomKeysVersion,
)
from homeserver.protocol.identifiers import is_valid_room_id
from homeserver.storage.database.database import Connection, Database
from homeserver.storage.encryption.backed_up_keys import (
    FIRST,
    BackedUpKey,
    StoredMetadata,
    delete_key,
    delete_keys_of_room,
    find_key,
    metadata_of_keys,
    page_of_keys,
    store_keys,
)
from homeserver.storage.encryption.key_backups import (
    KeyBackup,
    add_deleted_key_set,
    empty_backup,
    find_backup,
    find_current_backup,
    lock_backups,
    record_change,
    size_of_backups,
)

MAX_KEYS = 1_000_000  # of one version
MAX_SESSION_BYTES = 65_536  # of one `session_data`
MAX_SESSION_ID_BYTES = 255
MAX_BYTES = 2_147_483_648  # of all keys of a user
KEYS_A_STATEMENT = 200  # some milliseconds
PAGE_KEYS = 200
PAGE_BYTES = 131_072

Sessions = Mapping[str, KeyBackupData]


class KeyCount(msgspec.Struct, frozen=True):
    """The state of a backup after a change: an opaque `etag`, and the number of keys."""

    etag: str
    count: int


class BackedUpKeys:
    """The keys in the backups of local users. `writing` is that of `KeyBackups`."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        backups: KeyBackups,
        writing: KeyedLocks[str],
        deletion: KeySetDeletion,
    ) -> None:
        self._db = db
        self._clock = clock
        self._backups = backups
        self._writing = writing
        self._deletion = deletion
        # However many requests a user makes, they read with one connection at a time.
        self._reading: KeyedLocks[str] = KeyedLocks()

    async def upload(self, user_id: str, version: str, rooms: Mapping[str, Sessions]) -> KeyCount:
        """Add keys to the current backup, where they are better than those that it has.

        Raises `NotFound` without a backup, `WrongRoomKeysVersion` if another one is current,
        `BadJson`, `TooLarge`, and `UserLimitExceeded`; then nothing is stored.
        """
        keys = await build_cooperatively(self._clock, _checked(rooms))
        async with self._writing.hold(user_id):
            return await self._db.transaction(_upload, user_id, parse_version(version), keys)

    async def find(self, user_id: str, version: str, room_id: str, session_id: str) -> BackedUpKey:
        """One key. Raises `NotFound`."""
        backup = await self._backups.get(user_id, version)
        async with self._reading.hold(user_id):
            key = await self._db.run(find_key, backup.key_set, (room_id, session_id))
        if key is None:
            raise NotFound("Key not found")
        return key

    async def pages(
        self, user_id: str, version: str, room_id: str | None = None
    ) -> AsyncGenerator[list[BackedUpKey], None]:
        """All keys, or those of one room, by room and session, a page at a time.

        A key that is in the backup all the while is in one of the pages. Raises `NotFound` without
        such a version, and at the end if the version lost its keys in between: what was read is
        not all then.
        """
        backup = await self._backups.get(user_id, version)
        place = FIRST if room_id is None else (room_id, "")
        while True:
            async with self._reading.hold(user_id):
                page = await self._db.run(
                    page_of_keys, backup.key_set, room_id, place, PAGE_KEYS, PAGE_BYTES
                )
            if not page:
                break
            yield page
            place = page[-1].place
        if (await self._backups.get(user_id, version)).key_set != backup.key_set:
            raise NotFound("The keys of the backup were deleted in the meantime")

    async def delete(
        self,
        user_id: str,
        version: str,
        room_id: str | None = None,
        session_id: str | None = None,
    ) -> KeyCount:
        """Delete all keys, those of one room, or one key. Raises `NotFound` without such a version.

        There may be no such key. The keys of a room are deleted in one transaction: they are few,
        and what waits for it are changes of the same user's backups.
        """
        number = parse_version(version)
        async with self._writing.hold(user_id):
            if room_id is None:
                backup, key_set = await self._db.transaction(_delete_all, user_id, number)
            else:
                key_set = None
                backup = await self._db.transaction(
                    _delete_some, user_id, number, room_id, session_id
                )
        if key_set is not None:
            await self._deletion.delete(key_set)
        return _count(backup)


def _checked(rooms: Mapping[str, Sessions]) -> Iterator[BackedUpKey]:
    for room_id, sessions in rooms.items():
        if not is_valid_room_id(room_id):
            raise BadJson(f"{room_id[:64]!r} is not a room ID")
        for session_id, data in sessions.items():
            if not session_id or len(session_id.encode()) > MAX_SESSION_ID_BYTES:
                raise BadJson(f"A session ID has 1 to {MAX_SESSION_ID_BYTES} bytes")
            session_data = bytes(data.session_data)
            if len(session_data) > MAX_SESSION_BYTES:
                raise TooLarge(f"`session_data` has at most {MAX_SESSION_BYTES} bytes")
            yield BackedUpKey(
                room_id,
                session_id,
                data.first_message_index,
                data.forwarded_count,
                data.is_verified,
                session_data,
            )


def _count(backup: KeyBackup) -> KeyCount:
    return KeyCount(str(backup.etag), backup.key_count)


async def _upload(
    db: Connection, user_id: str, version: int | None, keys: Sequence[BackedUpKey]
) -> KeyCount:
    await lock_backups(db, user_id)
    backup = await find_current_backup(db, user_id)
    if backup is None:
        raise NotFound("No current backup version")
    if backup.version != version:
        raise WrongRoomKeysVersion("Wrong backup version", current_version=str(backup.version))
    written, added, size = 0, 0, 0
    for start in range(0, len(keys), KEYS_A_STATEMENT):
        some = keys[start : start + KEYS_A_STATEMENT]
        stored = {
            (metadata.room_id, metadata.session_id): metadata
            for metadata in await metadata_of_keys(db, backup.key_set, [key.place for key in some])
        }
        better = [key for key in some if _is_better(key, stored.get(key.place))]
        if better:
            await store_keys(db, backup.key_set, better)
        replaced = [stored[key.place].size for key in better if key.place in stored]
        written += len(better)
        added += len(better) - len(replaced)
        size += sum(key.size for key in better) - sum(replaced)
    if not written:
        return _count(backup)
    if added and backup.key_count + added > MAX_KEYS:
        raise UserLimitExceeded(f"A backup has at most {MAX_KEYS} keys")
    if size > 0 and size + await size_of_backups(db, user_id) > MAX_BYTES:
        raise UserLimitExceeded(f"The backups of a user have at most {MAX_BYTES} bytes")
    return _count(await record_change(db, user_id, backup.version, added, size))


def _is_better(key: BackedUpKey, stored: StoredMetadata | None) -> bool:
    return stored is None or is_replaced(_rank(stored), _rank(key))


def _rank(key: BackedUpKey | StoredMetadata) -> tuple[bool, int, int]:
    return rank(
        is_verified=key.is_verified,
        first_message_index=key.first_message_index,
        forwarded_count=key.forwarded_count,
    )


async def _locked(db: Connection, user_id: str, version: int | None) -> KeyBackup:
    """A version that nobody else changes until the transaction ends. Raises `NotFound`."""
    await lock_backups(db, user_id)
    backup = None if version is None else await find_backup(db, user_id, version)
    if backup is None:
        raise NotFound(UNKNOWN)
    return backup


async def _delete_all(
    db: Connection, user_id: str, version: int | None
) -> tuple[KeyBackup, int | None]:
    """Empty a version; also returns the key set whose rows are left to be deleted, if any."""
    backup = await _locked(db, user_id, version)
    if not backup.key_count:
        return backup, None
    await add_deleted_key_set(db, backup.key_set)
    return await empty_backup(db, user_id, backup.version), backup.key_set


async def _delete_some(
    db: Connection, user_id: str, version: int | None, room_id: str, session_id: str | None
) -> KeyBackup:
    backup = await _locked(db, user_id, version)
    if session_id is None:
        deleted, size = await delete_keys_of_room(db, backup.key_set, room_id)
    else:
        deleted, size = await delete_key(db, backup.key_set, (room_id, session_id))
    if not deleted:
        return backup
    return await record_change(db, user_id, backup.version, -deleted, -size)

"""Key backups: the versions of each user's backup, with what the server knows of their keys.

Owns the tables `key_backup_users`, `key_backups` and `deleted_key_sets`
(migrations/0028_key_backups.sql). The keys themselves are in `backed_up_keys.py`.

All writers of a user's backups lock the user's row first, so they come one after the other, and
what they read stays true until they commit.
"""

import msgspec
from psycopg.rows import class_row

from homeserver.storage.database.database import Connection


class KeyBackup(msgspec.Struct, frozen=True):
    """One version of a user's backup; `auth_data` is JSON, `etag` counts changes of its keys."""

    version: int
    algorithm: str
    auth_data: bytes
    key_set: int
    etag: int
    key_count: int


_COLUMNS = "version, algorithm, auth_data, key_set, etag, key_count"


async def lock_backups(db: Connection, user_id: str) -> None:
    """Wait for other writers of a user's backups, and keep them out until the transaction ends."""
    await db.execute(
        "SELECT FROM key_backup_users WHERE user_id = %s FOR UPDATE",
        (user_id,),
    )


async def create_backup(
    db: Connection, user_id: str, algorithm: str, auth_data: bytes, most: int
) -> int | None:
    """Add a version in a transaction, and return its number; `None` if there are `most` already."""
    cursor = await db.execute(
        """
        INSERT INTO key_backup_users AS known (user_id, last_version) VALUES (%s, 1)
            ON CONFLICT (user_id) DO UPDATE SET last_version = known.last_version + 1
        RETURNING last_version
        """,
        (user_id,),
    )
    row = await cursor.fetchone()
    assert row is not None
    # A statement of its own, so that it sees the versions that were made while it waited.
    cursor = await db.execute(
        """
        INSERT INTO key_backups (user_id, version, algorithm, auth_data)
        SELECT %s, %s, %s, %s
         WHERE %s > (SELECT count(*) FROM key_backups WHERE user_id = %s)
        """,
        (user_id, row[0], algorithm, auth_data, most, user_id),
    )
    return int(row[0]) if cursor.rowcount else None


async def find_current_backup(db: Connection, user_id: str) -> KeyBackup | None:
    """The newest version that is not deleted."""
    async with db.cursor(row_factory=class_row(KeyBackup)) as cursor:
        await cursor.execute(
            f"""
            SELECT {_COLUMNS}
              FROM key_backups
             WHERE user_id = %s
             ORDER BY version DESC
             LIMIT 1
            """,
            (user_id,),
        )
        return await cursor.fetchone()


async def find_backup(db: Connection, user_id: str, version: int) -> KeyBackup | None:
    """One version, unless it is deleted."""
    async with db.cursor(row_factory=class_row(KeyBackup)) as cursor:
        await cursor.execute(
            f"SELECT {_COLUMNS} FROM key_backups WHERE user_id = %s AND version = %s",
            (user_id, version),
        )
        return await cursor.fetchone()


async def was_created(db: Connection, user_id: str, version: int) -> bool:
    """Whether a version has ever existed."""
    cursor = await db.execute(
        "SELECT FROM key_backup_users WHERE user_id = %s AND last_version >= %s",
        (user_id, version),
    )
    return await cursor.fetchone() is not None


async def size_of_backups(db: Connection, user_id: str) -> int:
    """The bytes of all keys in all versions of a user."""
    cursor = await db.execute(
        "SELECT coalesce(sum(bytes), 0) FROM key_backups WHERE user_id = %s", (user_id,)
    )
    row = await cursor.fetchone()
    return 0 if row is None else int(row[0])


async def set_auth_data(db: Connection, user_id: str, version: int, auth_data: bytes) -> bool:
    """Replace the `auth_data` of a version; false if there is no such version."""
    cursor = await db.execute(
        "UPDATE key_backups SET auth_data = %s WHERE user_id = %s AND version = %s",
        (auth_data, user_id, version),
    )
    return cursor.rowcount > 0


async def record_change(
    db: Connection, user_id: str, version: int, added: int, size: int
) -> KeyBackup:
    """Count a change of a version's keys: by how many keys and bytes it grew, or shrank."""
    async with db.cursor(row_factory=class_row(KeyBackup)) as cursor:
        await cursor.execute(
            f"""
            UPDATE key_backups
               SET etag = etag + 1, key_count = key_count + %s, bytes = bytes + %s
             WHERE user_id = %s AND version = %s
            RETURNING {_COLUMNS}
            """,
            (added, size, user_id, version),
        )
        changed = await cursor.fetchone()
    assert changed is not None, "the caller has locked the user's backups"
    return changed


async def empty_backup(db: Connection, user_id: str, version: int) -> KeyBackup:
    """Give a version an empty key set; the caller adds the former one to the deleted ones."""
    async with db.cursor(row_factory=class_row(KeyBackup)) as cursor:
        await cursor.execute(
            f"""
            UPDATE key_backups
               SET etag = etag + 1, key_count = 0, bytes = 0, key_set = nextval('key_sets')
             WHERE user_id = %s AND version = %s
            RETURNING {_COLUMNS}
            """,
            (user_id, version),
        )
        changed = await cursor.fetchone()
    assert changed is not None, "the caller has locked the user's backups"
    return changed


async def delete_backup(db: Connection, user_id: str, version: int) -> int | None:
    """Delete a version and return its key set, which joins the deleted ones."""
    cursor = await db.execute(
        """
        WITH deleted AS (
            DELETE FROM key_backups WHERE user_id = %s AND version = %s RETURNING key_set
        )
        INSERT INTO deleted_key_sets SELECT key_set FROM deleted RETURNING key_set
        """,
        (user_id, version),
    )
    row = await cursor.fetchone()
    return None if row is None else int(row[0])


async def delete_backups_of(db: Connection, user_id: str) -> list[int]:
    """Delete all versions of a user and their number; their key sets join the deleted ones."""
    cursor = await db.execute(
        """
        WITH deleted AS (DELETE FROM key_backups WHERE user_id = %s RETURNING key_set),
             forgotten AS (DELETE FROM key_backup_users WHERE user_id = %s)
        INSERT INTO deleted_key_sets SELECT key_set FROM deleted RETURNING key_set
        """,
        (user_id, user_id),
    )
    return [int(key_set) for (key_set,) in await cursor.fetchall()]


async def add_deleted_key_set(db: Connection, key_set: int) -> None:
    """Record that a key set belongs to no backup any more."""
    await db.execute("INSERT INTO deleted_key_sets (key_set) VALUES (%s)", (key_set,))


async def deleted_key_sets(db: Connection) -> list[int]:
    """The key sets that may still have rows, though they belong to no backup."""
    cursor = await db.execute("SELECT key_set FROM deleted_key_sets ORDER BY key_set")
    return [int(key_set) for (key_set,) in await cursor.fetchall()]


async def forget_key_set(db: Connection, key_set: int) -> None:
    """Record that a deleted key set has no rows left."""
    await db.execute("DELETE FROM deleted_key_sets WHERE key_set = %s", (key_set,))

"""Device codes: clients that wait until a user lets them in from another device.

Owns the table `oauth_device_codes` (migrations/0048_oauth.sql), which has hashes of the codes.
"""

import msgspec
from psycopg.rows import class_row

from homeserver.storage.database.database import Connection


class StoredDeviceCode(msgspec.Struct, frozen=True):
    """A client that waits. `user_id` is the user who has decided, if one has."""

    client_id: str
    scope: str
    expires_ms: int
    polled_ms: int = 0
    user_id: str | None = None
    is_allowed: bool = False


async def insert_device_code(
    db: Connection,
    device_code_hash: bytes,
    user_code_hash: bytes,
    code: StoredDeviceCode,
    most: int,
) -> bool:
    """Add a client that waits; false where the user code is taken, or `most` wait."""
    cursor = await db.execute(
        """
        INSERT INTO oauth_device_codes
               (device_code_hash, user_code_hash, client_id, scope, expires_ms)
        SELECT %s, %s, %s, %s, %s
         WHERE %s > (SELECT count(*) FROM (SELECT FROM oauth_device_codes LIMIT %s) AS counted)
            ON CONFLICT DO NOTHING
        """,
        (
            device_code_hash,
            user_code_hash,
            code.client_id,
            code.scope,
            code.expires_ms,
            most,
            most,
        ),
    )
    return cursor.rowcount == 1


async def lock_device_code(db: Connection, device_code_hash: bytes) -> StoredDeviceCode | None:
    """The client that waits with a device code, locked until the end of the transaction."""
    async with db.cursor(row_factory=class_row(StoredDeviceCode)) as cursor:
        await cursor.execute(
            """
            SELECT client_id, scope, expires_ms, polled_ms, user_id, is_allowed
              FROM oauth_device_codes
             WHERE device_code_hash = %s
               FOR UPDATE
            """,
            (device_code_hash,),
        )
        return await cursor.fetchone()


async def find_undecided_device_code(
    db: Connection, user_code_hash: bytes, now_ms: int
) -> StoredDeviceCode | None:
    """The client that waits for the decision of the user who has this user code."""
    async with db.cursor(row_factory=class_row(StoredDeviceCode)) as cursor:
        await cursor.execute(
            """
            SELECT client_id, scope, expires_ms
              FROM oauth_device_codes
             WHERE user_code_hash = %s AND expires_ms > %s AND user_id IS NULL
            """,
            (user_code_hash, now_ms),
        )
        return await cursor.fetchone()


async def decide_device_code(
    db: Connection, user_code_hash: bytes, now_ms: int, user_id: str, *, is_allowed: bool
) -> bool:
    """Store the decision of a user; false where none is waited for."""
    cursor = await db.execute(
        """
        UPDATE oauth_device_codes
           SET user_id = %s, is_allowed = %s
         WHERE user_code_hash = %s AND expires_ms > %s AND user_id IS NULL
        """,
        (user_id, is_allowed, user_code_hash, now_ms),
    )
    return cursor.rowcount == 1


async def set_device_code_polled(db: Connection, device_code_hash: bytes, now_ms: int) -> None:
    """Note when the client has asked."""
    await db.execute(
        "UPDATE oauth_device_codes SET polled_ms = %s WHERE device_code_hash = %s",
        (now_ms, device_code_hash),
    )


async def delete_device_code(db: Connection, device_code_hash: bytes) -> None:
    """The client waits no more."""
    await db.execute(
        "DELETE FROM oauth_device_codes WHERE device_code_hash = %s", (device_code_hash,)
    )


async def delete_device_codes_of(db: Connection, user_id: str) -> None:
    """Delete what a user has decided, and no client has fetched."""
    await db.execute("DELETE FROM oauth_device_codes WHERE user_id = %s", (user_id,))


async def delete_expired_device_codes(db: Connection, expired_ms: int) -> None:
    """Delete the codes that expired before a time."""
    await db.execute("DELETE FROM oauth_device_codes WHERE expires_ms <= %s", (expired_ms,))

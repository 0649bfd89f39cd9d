"""Filters: what clients defined of the events that they want to get.

Owns the table `filters` (migrations/0002_accounts.sql). The same filter of a user is stored once.
"""

from homeserver.storage.database import Connection


async def store_filter(db: Connection, user_id: str, content_hash: bytes, content: bytes) -> int:
    """The number of a filter, which is added where the user has not got it yet."""
    # The update changes nothing, but makes RETURNING give the row that was there before.
    cursor = await db.execute(
        """
        INSERT INTO filters (user_id, content_hash, content)
        VALUES (%s, %s, %s)
            ON CONFLICT (user_id, content_hash) DO UPDATE SET content_hash = EXCLUDED.content_hash
        RETURNING id
        """,
        (user_id, content_hash, content),
    )
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


async def find_filter(db: Connection, user_id: str, number: int) -> bytes | None:
    """A filter of a user, as JSON."""
    cursor = await db.execute(
        "SELECT content FROM filters WHERE user_id = %s AND id = %s", (user_id, number)
    )
    row = await cursor.fetchone()
    return None if row is None else bytes(row[0])

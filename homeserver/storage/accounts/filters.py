"""Filters: the clients' definitions of the events that they want to receive.

Owns the table `filters` (migrations/0002_accounts.sql). The same filter of a user is stored once.
"""

from homeserver.storage.database.database import Connection


async def store_filter(
    db: Connection, user_id: str, content_hash: bytes, content: bytes, most: int
) -> int | None:
    """Return the number of a filter, and add the filter if the user does not have it yet.

    `None` if the user already has `most` other filters.
    """
    # The update changes nothing, but makes RETURNING include a row that already existed.
    cursor = await db.execute(
        """
        INSERT INTO filters (user_id, content_hash, content)
        SELECT %s, %s, %s
         WHERE %s > (SELECT count(*) FROM filters WHERE user_id = %s AND content_hash <> %s)
            ON CONFLICT (user_id, content_hash) DO UPDATE SET content_hash = EXCLUDED.content_hash
        RETURNING id
        """,
        (user_id, content_hash, content, most, user_id, content_hash),
    )
    row = await cursor.fetchone()
    return None if row is None else int(row[0])


async def find_filter(db: Connection, user_id: str, number: int) -> bytes | None:
    """A filter of a user, as JSON."""
    cursor = await db.execute(
        "SELECT content FROM filters WHERE user_id = %s AND id = %s", (user_id, number)
    )
    row = await cursor.fetchone()
    return None if row is None else bytes(row[0])

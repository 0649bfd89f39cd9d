"""Registered clients of the OAuth 2.0 API.

Owns the table `oauth_clients` (migrations/0048_oauth.sql). The row of a client that has a session
cannot be deleted.
"""

from collections.abc import Sequence

from homeserver.storage.database.database import Connection


async def register_oauth_client(
    db: Connection, client_id: str, metadata: bytes, now_ms: int, most: int
) -> bool:
    """Add a client, or note that it has registered again; false where there are `most` others."""
    cursor = await db.execute(
        """
        INSERT INTO oauth_clients (client_id, metadata, registered_ms)
        SELECT %s, %s, %s
         WHERE EXISTS (SELECT FROM oauth_clients WHERE client_id = %s)
            OR %s > (SELECT count(*) FROM (SELECT FROM oauth_clients LIMIT %s) AS counted)
            ON CONFLICT (client_id) DO UPDATE SET registered_ms = EXCLUDED.registered_ms
        """,
        (client_id, metadata, now_ms, client_id, most, most),
    )
    return cursor.rowcount == 1


async def find_oauth_client(db: Connection, client_id: str) -> bytes | None:
    """The metadata of a client, as JSON."""
    cursor = await db.execute(
        "SELECT metadata FROM oauth_clients WHERE client_id = %s", (client_id,)
    )
    row = await cursor.fetchone()
    return None if row is None else bytes(row[0])


async def oauth_clients_before(
    db: Connection, registered_ms: int, after: str, most: int
) -> list[str]:
    """Clients that registered last before a time, by id, with ids above `after`."""
    cursor = await db.execute(
        """
        SELECT client_id
          FROM oauth_clients
         WHERE registered_ms < %s AND client_id > %s
         ORDER BY client_id
         LIMIT %s
        """,
        (registered_ms, after, most),
    )
    return [str(row[0]) for row in await cursor.fetchall()]


async def delete_oauth_clients(
    db: Connection, client_ids: Sequence[str], registered_ms: int
) -> None:
    """Delete these clients, unless they have registered again since a time."""
    await db.execute(
        "DELETE FROM oauth_clients WHERE client_id = ANY(%s) AND registered_ms < %s",
        ([*client_ids], registered_ms),
    )

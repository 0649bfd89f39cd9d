"""Sessions of the OAuth 2.0 API: a client that a user has let in, as one of their devices.

Owns the table `oauth_sessions` (migrations/0048_oauth.sql). A session is deleted with its device,
and its tokens with it.
"""

from collections.abc import Sequence

import msgspec
from psycopg.rows import class_row

from homeserver.storage.database.database import Connection


class StoredOAuthSession(msgspec.Struct, frozen=True):
    """One session. `generation` is that of its newest refresh token."""

    id: int
    user_id: str
    device_id: str
    client_id: str
    scope: str
    generation: int


async def insert_oauth_session(
    db: Connection, user_id: str, device_id: str, client_id: str, scope: str, family_hash: bytes
) -> int:
    """Add a session to a device that has none, and return its number."""
    cursor = await db.execute(
        """
        INSERT INTO oauth_sessions (user_id, device_id, client_id, scope, family_hash)
        VALUES (%s, %s, %s, %s, %s)
        RETURNING id
        """,
        (user_id, device_id, client_id, scope, family_hash),
    )
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


async def find_oauth_session(db: Connection, session: int) -> StoredOAuthSession | None:
    """A session by its number."""
    async with db.cursor(row_factory=class_row(StoredOAuthSession)) as cursor:
        await cursor.execute(
            """
            SELECT id, user_id, device_id, client_id, scope, generation
              FROM oauth_sessions
             WHERE id = %s
            """,
            (session,),
        )
        return await cursor.fetchone()


async def find_oauth_session_of_family(
    db: Connection, family_hash: bytes
) -> StoredOAuthSession | None:
    """A session by the hash of what its refresh tokens share."""
    async with db.cursor(row_factory=class_row(StoredOAuthSession)) as cursor:
        await cursor.execute(
            """
            SELECT id, user_id, device_id, client_id, scope, generation
              FROM oauth_sessions
             WHERE family_hash = %s
            """,
            (family_hash,),
        )
        return await cursor.fetchone()


async def set_oauth_generation(db: Connection, session: int, generation: int) -> None:
    """Note the generation of a session's newest refresh token."""
    await db.execute(
        "UPDATE oauth_sessions SET generation = %s WHERE id = %s", (generation, session)
    )


async def delete_oauth_session_of_device(db: Connection, user_id: str, device_id: str) -> None:
    """Delete the session of a device, if it has one, with its tokens."""
    await db.execute(
        "DELETE FROM oauth_sessions WHERE user_id = %s AND device_id = %s", (user_id, device_id)
    )


async def delete_oauth_sessions_of_user(db: Connection, user_id: str) -> None:
    """Delete all sessions of a user, with their tokens."""
    await db.execute("DELETE FROM oauth_sessions WHERE user_id = %s", (user_id,))


async def oauth_clients_with_sessions(db: Connection, client_ids: Sequence[str]) -> set[str]:
    """Those of the clients that have a session."""
    cursor = await db.execute(
        """
        SELECT client_id
          FROM unnest(%s::text[]) AS asked (client_id)
         WHERE EXISTS (SELECT FROM oauth_sessions AS s WHERE s.client_id = asked.client_id)
        """,
        ([*client_ids],),
    )
    return {str(row[0]) for row in await cursor.fetchall()}

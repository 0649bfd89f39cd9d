"""Browser sessions: users who are signed in to the pages of this server.

Owns the table `browser_sessions` (migrations/0047_browser_sessions.sql), which has the SHA-256 hash
of the secret in each cookie, not the secret.
"""

import msgspec
from psycopg.rows import class_row

from homeserver.storage.database.database import Connection


class StoredBrowserSession(msgspec.Struct, frozen=True):
    """One session: its user, and when that user proved who they are (ms since the epoch)."""

    user_id: str
    authenticated_ms: int


async def insert_browser_session(
    db: Connection, secret_hash: bytes, user_id: str, *, now_ms: int, expires_ms: int
) -> None:
    """Add a session, whose user was authenticated now."""
    await db.execute(
        """
        INSERT INTO browser_sessions (secret_hash, user_id, authenticated_ms, expires_ms)
        VALUES (%s, %s, %s, %s)
        """,
        (secret_hash, user_id, now_ms, expires_ms),
    )


async def find_browser_session(
    db: Connection, secret_hash: bytes, now_ms: int
) -> StoredBrowserSession | None:
    """The session with this hash, unless it has expired."""
    async with db.cursor(row_factory=class_row(StoredBrowserSession)) as cursor:
        await cursor.execute(
            """
            SELECT user_id, authenticated_ms
              FROM browser_sessions
             WHERE secret_hash = %s AND expires_ms > %s
            """,
            (secret_hash, now_ms),
        )
        return await cursor.fetchone()


async def delete_browser_session(db: Connection, secret_hash: bytes) -> None:
    """Delete one session."""
    await db.execute("DELETE FROM browser_sessions WHERE secret_hash = %s", (secret_hash,))


async def delete_browser_sessions_of(db: Connection, user_id: str) -> None:
    """Delete all sessions of a user."""
    await db.execute("DELETE FROM browser_sessions WHERE user_id = %s", (user_id,))


async def delete_oldest_browser_sessions(db: Connection, user_id: str, most: int) -> None:
    """Delete the oldest sessions of a user who has more than `most`."""
    await db.execute(
        """
        DELETE FROM browser_sessions
         WHERE secret_hash IN (SELECT secret_hash
                                 FROM browser_sessions
                                WHERE user_id = %s
                                ORDER BY authenticated_ms DESC, secret_hash
                               OFFSET %s)
        """,
        (user_id, most),
    )


async def delete_expired_browser_sessions(db: Connection, now_ms: int) -> None:
    """Delete the sessions that have expired."""
    await db.execute("DELETE FROM browser_sessions WHERE expires_ms <= %s", (now_ms,))

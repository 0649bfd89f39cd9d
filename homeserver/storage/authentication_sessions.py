"""Authentication sessions: what a client has proved so far in user-interactive authentication.

Owns the table `authentication_sessions` (migrations/0002_accounts.sql). The contents are sealed by
the domain (`accounts/authentication_sessions.py`); nothing here can read them.
"""

from homeserver.storage.database import Connection


async def save_authentication_session(
    db: Connection, session_hash: bytes, sealed: bytes, expires_ms: int
) -> None:
    """Add or replace a session."""
    await db.execute(
        """
        INSERT INTO authentication_sessions (session_hash, sealed, expires_ms)
        VALUES (%s, %s, %s)
            ON CONFLICT (session_hash) DO UPDATE SET sealed = EXCLUDED.sealed
        """,
        (session_hash, sealed, expires_ms),
    )


async def find_authentication_session(
    db: Connection, session_hash: bytes, now_ms: int
) -> bytes | None:
    """The sealed contents of a session, unless it has expired."""
    cursor = await db.execute(
        """
        SELECT sealed
          FROM authentication_sessions
         WHERE session_hash = %s AND expires_ms > %s
        """,
        (session_hash, now_ms),
    )
    row = await cursor.fetchone()
    return None if row is None else bytes(row[0])


async def delete_authentication_session(db: Connection, session_hash: bytes) -> None:
    """End a session."""
    await db.execute("DELETE FROM authentication_sessions WHERE session_hash = %s", (session_hash,))


async def delete_expired_authentication_sessions(db: Connection, now_ms: int) -> None:
    """Delete what is of no more use."""
    await db.execute("DELETE FROM authentication_sessions WHERE expires_ms <= %s", (now_ms,))

"""Authentication sessions: the stages that a client has completed in user-interactive
authentication.

Owns the table `authentication_sessions` (migrations/0002_accounts.sql). The contents are sealed by
the domain (`accounts/interactive_auth/authentication_sessions.py`); this module cannot read them.
"""

import msgspec

from homeserver.storage.database.database import Connection


class NewSession(msgspec.Struct, frozen=True):
    """A session to be stored under a name, which begins with the tag of its party."""

    name: bytes
    sealed: bytes
    expires_ms: int


class SessionLimits(msgspec.Struct, frozen=True):
    """The maximum number of sessions: of the party with a tag, and of all parties together.

    The tag is ASCII. Beyond its own maximum a party loses its oldest session.
    """

    tag: bytes
    of_party: int
    in_all: int


async def add_authentication_session(
    db: Connection, session: NewSession, bounds: SessionLimits
) -> bool:
    """Add a session; false if all parties together have too many."""
    cursor = await db.execute(
        """
        WITH of_party AS (
            SELECT session_hash, expires_ms
              FROM authentication_sessions
             WHERE session_hash >= %s AND session_hash < %s
             LIMIT %s
        ), given_up AS (
            DELETE FROM authentication_sessions
             WHERE session_hash = (SELECT session_hash FROM of_party
                                    WHERE %s <= (SELECT count(*) FROM of_party)
                                    ORDER BY expires_ms
                                    LIMIT 1)
        )
        INSERT INTO authentication_sessions (session_hash, sealed, expires_ms)
        SELECT %s, %s, %s
         WHERE %s > (SELECT count(*)
                       FROM (SELECT FROM authentication_sessions LIMIT %s) AS in_all)
        """,
        (
            bounds.tag,
            bounds.tag[:-1] + bytes([bounds.tag[-1] + 1]),
            bounds.of_party,
            bounds.of_party,
            session.name,
            session.sealed,
            session.expires_ms,
            bounds.in_all,
            bounds.in_all,
        ),
    )
    return cursor.rowcount == 1


async def update_authentication_session(db: Connection, name: bytes, sealed: bytes) -> None:
    """Replace the contents of a session, if it exists."""
    await db.execute(
        "UPDATE authentication_sessions SET sealed = %s WHERE session_hash = %s", (sealed, name)
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
    """Delete the sessions that have expired."""
    await db.execute("DELETE FROM authentication_sessions WHERE expires_ms <= %s", (now_ms,))

"""Validation sessions, in which users prove that an address is theirs.

Owns the table `validation_sessions` (migrations/0014_third_party_ids.sql). A session is found by
the client's secret, so that a repeated request does not begin a second one.

Spec: https://spec.matrix.org/v1.19/identity-service-api/#establishing-associations
"""

import msgspec
from psycopg.rows import class_row

from homeserver.storage.database.database import Connection

COLUMNS = """sid, secret_hash, purpose, medium, address, send_attempt, token_hash, next_link,
             validated_ms, expires_ms"""


class ValidationSession(msgspec.Struct, frozen=True):
    """One session. Without a `token_hash` it cannot be validated."""

    sid: str
    secret_hash: bytes
    purpose: str
    medium: str
    address: str
    send_attempt: int
    token_hash: bytes | None
    next_link: str | None
    validated_ms: int | None
    expires_ms: int


async def begin_validation(db: Connection, new: ValidationSession, now_ms: int) -> tuple[str, bool]:
    """Begin a session, or continue the one that the client began before.

    Returns its id, and whether `send_attempt` is a new one. Run it in a transaction.
    """
    key = (new.secret_hash, new.medium, new.address, new.purpose)
    await db.execute(
        """
        DELETE FROM validation_sessions
         WHERE secret_hash = %s AND medium = %s AND address = %s AND purpose = %s
           AND expires_ms <= %s
        """,
        (*key, now_ms),
    )
    cursor = await db.execute(
        """
        INSERT INTO validation_sessions AS old
               (sid, secret_hash, purpose, medium, address, send_attempt, token_hash, next_link,
                expires_ms)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)
            ON CONFLICT (secret_hash, medium, address, purpose)
            DO UPDATE SET send_attempt = EXCLUDED.send_attempt, token_hash = EXCLUDED.token_hash,
                          next_link = EXCLUDED.next_link, expires_ms = EXCLUDED.expires_ms
         WHERE old.send_attempt < EXCLUDED.send_attempt
        RETURNING sid
        """,
        (
            new.sid,
            new.secret_hash,
            new.purpose,
            new.medium,
            new.address,
            new.send_attempt,
            new.token_hash,
            new.next_link,
            new.expires_ms,
        ),
    )
    row = await cursor.fetchone()
    if row is not None:
        return str(row[0]), True
    cursor = await db.execute(
        """
        SELECT sid
          FROM validation_sessions
         WHERE secret_hash = %s AND medium = %s AND address = %s AND purpose = %s
        """,
        key,
    )
    row = await cursor.fetchone()
    assert row is not None, "the conflicting row"
    return str(row[0]), False


async def undo_send_attempt(db: Connection, sid: str, send_attempt: int) -> None:
    """Undo a failed attempt, so that the client may use the same number again."""
    await db.execute(
        """
        UPDATE validation_sessions SET send_attempt = send_attempt - 1
         WHERE sid = %s AND send_attempt = %s
        """,
        (sid, send_attempt),
    )


async def find_validation_session(
    db: Connection, sid: str, now_ms: int
) -> ValidationSession | None:
    """One session, unless it has expired."""
    async with db.cursor(row_factory=class_row(ValidationSession)) as cursor:
        await cursor.execute(
            f"SELECT {COLUMNS} FROM validation_sessions WHERE sid = %s AND expires_ms > %s",
            (sid, now_ms),
        )
        return await cursor.fetchone()


async def set_validated(db: Connection, sid: str, now_ms: int, expires_ms: int) -> None:
    """Record that the user has proved to own the address; the first time counts."""
    await db.execute(
        """
        UPDATE validation_sessions
           SET validated_ms = coalesce(validated_ms, %s), expires_ms = %s
         WHERE sid = %s
        """,
        (now_ms, expires_ms, sid),
    )


async def delete_validation_session(db: Connection, sid: str) -> bool:
    """End a session; false if it has already ended."""
    cursor = await db.execute("DELETE FROM validation_sessions WHERE sid = %s", (sid,))
    return cursor.rowcount == 1


async def delete_expired_validation_sessions(db: Connection, now_ms: int) -> None:
    """Delete the sessions that have expired."""
    await db.execute("DELETE FROM validation_sessions WHERE expires_ms <= %s", (now_ms,))

"""Registration tokens: pre-shared secrets that let users register.

Owns the table `registration_tokens` (migrations/0002_accounts.sql).

Spec: https://spec.matrix.org/v1.19/client-server-api/#token-authenticated-registration
"""

from homeserver.storage.database.database import Connection


async def insert_registration_token(
    db: Connection, token: str, uses_allowed: int | None, expires_ms: int | None
) -> bool:
    """Add a token; false if it exists already."""
    cursor = await db.execute(
        """
        INSERT INTO registration_tokens (token, uses_allowed, expires_ms)
        VALUES (%s, %s, %s)
            ON CONFLICT DO NOTHING
        """,
        (token, uses_allowed, expires_ms),
    )
    return cursor.rowcount == 1


async def is_registration_token_valid(db: Connection, token: str, now_ms: int) -> bool:
    """Whether a user could register now with a token."""
    cursor = await db.execute(
        """
        SELECT 1
          FROM registration_tokens
         WHERE token = %s AND (uses_allowed IS NULL OR uses < uses_allowed)
           AND (expires_ms IS NULL OR expires_ms > %s)
        """,
        (token, now_ms),
    )
    return await cursor.fetchone() is not None


async def use_registration_token(db: Connection, token: str, now_ms: int) -> bool:
    """Count one use of a token; false if it is no longer valid."""
    cursor = await db.execute(
        """
        UPDATE registration_tokens SET uses = uses + 1
         WHERE token = %s AND (uses_allowed IS NULL OR uses < uses_allowed)
           AND (expires_ms IS NULL OR expires_ms > %s)
        """,
        (token, now_ms),
    )
    return cursor.rowcount == 1

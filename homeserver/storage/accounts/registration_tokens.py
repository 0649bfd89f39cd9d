"""Registration tokens: pre-shared secrets that let users register.

Owns the table `registration_tokens` (migrations/0002_accounts.sql).

Spec: https://spec.matrix.org/v1.19/client-server-api/#token-authenticated-registration
"""

import msgspec
from psycopg.rows import class_row

from homeserver.storage.database.database import Connection


class RegistrationToken(msgspec.Struct, frozen=True):
    """A token, and the number of accounts that were registered with it.

    `uses_allowed` is None for any number, `expires_ms` for no end.
    """

    token: str
    uses_allowed: int | None
    uses: int
    expires_ms: int | None


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


async def all_registration_tokens(db: Connection) -> list[RegistrationToken]:
    """All tokens, by name."""
    async with db.cursor(row_factory=class_row(RegistrationToken)) as cursor:
        await cursor.execute(
            "SELECT token, uses_allowed, uses, expires_ms FROM registration_tokens ORDER BY token"
        )
        return await cursor.fetchall()


async def delete_registration_token(db: Connection, token: str) -> bool:
    """Remove a token; false if there is none."""
    cursor = await db.execute("DELETE FROM registration_tokens WHERE token = %s", (token,))
    return cursor.rowcount == 1

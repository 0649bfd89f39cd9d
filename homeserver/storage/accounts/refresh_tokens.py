"""Refresh tokens, which clients exchange for new access tokens.

Owns the table `refresh_tokens` (migrations/0002_accounts.sql). A refresh makes a successor that
points to the token which was used. Deleting a token deletes the access tokens issued with it, and
leaves its successors without a predecessor.

Spec: https://spec.matrix.org/v1.19/client-server-api/#refreshing-access-tokens
"""

import msgspec
from psycopg.rows import class_row

from homeserver.storage.database.database import Connection


class RefreshToken(msgspec.Struct, frozen=True):
    """One refresh token.

    `predecessor` is the token that it replaced, until that one is revoked. `oauth_session` is the
    number of its session, if that is one of the OAuth 2.0 API.
    """

    id: int
    user_id: str
    device_id: str
    predecessor: int | None
    expires_ms: int | None
    oauth_session: int | None


async def insert_refresh_token(
    db: Connection,
    token_hash: bytes,
    user_id: str,
    device_id: str,
    *,
    predecessor: int | None = None,
    expires_ms: int | None = None,
    oauth_session: int | None = None,
) -> int:
    """Add a token and return its number."""
    cursor = await db.execute(
        """
        INSERT INTO refresh_tokens
               (token_hash, user_id, device_id, predecessor, expires_ms, oauth_session)
        VALUES (%s, %s, %s, %s, %s, %s)
        RETURNING id
        """,
        (token_hash, user_id, device_id, predecessor, expires_ms, oauth_session),
    )
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


async def find_refresh_token(db: Connection, token_hash: bytes) -> RefreshToken | None:
    """The token with this hash."""
    async with db.cursor(row_factory=class_row(RefreshToken)) as cursor:
        await cursor.execute(
            """
            SELECT id, user_id, device_id, predecessor, expires_ms, oauth_session
              FROM refresh_tokens
             WHERE token_hash = %s
            """,
            (token_hash,),
        )
        return await cursor.fetchone()


async def has_predecessor(db: Connection, token: int) -> bool:
    """Whether the token that this one replaced is not revoked yet."""
    cursor = await db.execute(
        "SELECT FROM refresh_tokens WHERE id = %s AND predecessor IS NOT NULL", (token,)
    )
    return await cursor.fetchone() is not None


async def delete_predecessor(db: Connection, token: int) -> None:
    """Revoke the token that this one replaced, if it is not revoked yet."""
    await db.execute(
        """
        DELETE FROM refresh_tokens
         WHERE id = (SELECT predecessor FROM refresh_tokens WHERE id = %s)
        """,
        (token,),
    )


async def delete_successors(db: Connection, token: int) -> None:
    """Revoke the tokens issued earlier for this token; no client has used them."""
    await db.execute("DELETE FROM refresh_tokens WHERE predecessor = %s", (token,))


async def delete_refresh_tokens_of_device(db: Connection, user_id: str, device_id: str) -> None:
    """Delete all tokens of one device."""
    await db.execute(
        "DELETE FROM refresh_tokens WHERE user_id = %s AND device_id = %s", (user_id, device_id)
    )


async def delete_refresh_tokens_of_user(db: Connection, user_id: str) -> None:
    """Delete all tokens of a user."""
    await db.execute("DELETE FROM refresh_tokens WHERE user_id = %s", (user_id,))

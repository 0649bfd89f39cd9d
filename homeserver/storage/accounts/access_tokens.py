"""Access tokens, with which clients authenticate their requests.

Owns the table `access_tokens` (migrations/0002_accounts.sql), which has the SHA-256 hash of each
token, not the token. A token is deleted with its device, and with the refresh token that was issued
with it.
"""

import msgspec
from psycopg.rows import class_row

from homeserver.storage.database.database import Connection


class AccessToken(msgspec.Struct, frozen=True):
    """One access token.

    `refresh_token` is the number of the refresh token issued with it, and `oauth_session` that of
    its session, if that is one of the OAuth 2.0 API.
    """

    id: int
    user_id: str
    device_id: str | None
    refresh_token: int | None
    expires_ms: int | None
    oauth_session: int | None


async def insert_access_token(
    db: Connection,
    token_hash: bytes,
    user_id: str,
    device_id: str | None,
    *,
    refresh_token: int | None = None,
    now_ms: int,
    expires_ms: int | None = None,
    oauth_session: int | None = None,
) -> None:
    """Add a token."""
    await db.execute(
        """
        INSERT INTO access_tokens
               (token_hash, user_id, device_id, refresh_token, created_ms, expires_ms,
                oauth_session)
        VALUES (%s, %s, %s, %s, %s, %s, %s)
        """,
        (token_hash, user_id, device_id, refresh_token, now_ms, expires_ms, oauth_session),
    )


async def find_access_token(db: Connection, token_hash: bytes) -> AccessToken | None:
    """The token with this hash, expired or not."""
    async with db.cursor(row_factory=class_row(AccessToken)) as cursor:
        await cursor.execute(
            """
            SELECT id, user_id, device_id, refresh_token, expires_ms, oauth_session
              FROM access_tokens
             WHERE token_hash = %s
            """,
            (token_hash,),
        )
        return await cursor.fetchone()


async def delete_access_token(db: Connection, token: int) -> None:
    """Delete one token by its number."""
    await db.execute("DELETE FROM access_tokens WHERE id = %s", (token,))


async def delete_access_tokens_of_device(db: Connection, user_id: str, device_id: str) -> None:
    """Delete all tokens of one device."""
    await db.execute(
        "DELETE FROM access_tokens WHERE user_id = %s AND device_id = %s", (user_id, device_id)
    )


async def delete_access_tokens_of_user(
    db: Connection, user_id: str, *, without_device: bool = False, but: int = 0
) -> None:
    """Delete a user's tokens, or only those without a device; never the one numbered `but`."""
    await db.execute(
        """
        DELETE FROM access_tokens
         WHERE user_id = %s AND id <> %s AND (device_id IS NULL OR NOT %s)
        """,
        (user_id, but, without_device),
    )

"""OpenID tokens, which let a third party verify a user's identity and do nothing else.

Owns the table `openid_tokens` (migrations/0002_accounts.sql), which has hashes, not tokens.

Spec: https://spec.matrix.org/v1.19/client-server-api/#openid
"""

from homeserver.storage.database.database import Connection


async def insert_openid_token(
    db: Connection, token_hash: bytes, user_id: str, expires_ms: int
) -> None:
    """Add a token."""
    await db.execute(
        "INSERT INTO openid_tokens (token_hash, user_id, expires_ms) VALUES (%s, %s, %s)",
        (token_hash, user_id, expires_ms),
    )


async def find_openid_user(db: Connection, token_hash: bytes, now_ms: int) -> str | None:
    """The user of a token, unless it has expired."""
    cursor = await db.execute(
        "SELECT user_id FROM openid_tokens WHERE token_hash = %s AND expires_ms > %s",
        (token_hash, now_ms),
    )
    row = await cursor.fetchone()
    return None if row is None else str(row[0])


async def delete_openid_tokens_of(db: Connection, user_id: str) -> None:
    """Delete all tokens of a user."""
    await db.execute("DELETE FROM openid_tokens WHERE user_id = %s", (user_id,))


async def delete_expired_openid_tokens(db: Connection, now_ms: int) -> None:
    """Delete the tokens that have expired."""
    await db.execute("DELETE FROM openid_tokens WHERE expires_ms <= %s", (now_ms,))

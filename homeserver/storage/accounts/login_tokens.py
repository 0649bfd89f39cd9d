"""Login tokens: single-use tokens with which another client logs in, by `m.login.token`.

Owns the table `login_tokens` (migrations/0002_accounts.sql), which has hashes, not tokens.

Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv1loginget_token
"""

from homeserver.storage.database.database import Connection


async def insert_login_token(
    db: Connection, token_hash: bytes, user_id: str, expires_ms: int
) -> None:
    """Add a token."""
    await db.execute(
        "INSERT INTO login_tokens (token_hash, user_id, expires_ms) VALUES (%s, %s, %s)",
        (token_hash, user_id, expires_ms),
    )


async def take_login_token(db: Connection, token_hash: bytes, now_ms: int) -> str | None:
    """Delete a token and return the user whom it logs in; `None` if unknown or expired."""
    cursor = await db.execute(
        "DELETE FROM login_tokens WHERE token_hash = %s RETURNING user_id, expires_ms",
        (token_hash,),
    )
    row = await cursor.fetchone()
    return None if row is None or row[1] <= now_ms else str(row[0])


async def delete_login_tokens_of(db: Connection, user_id: str) -> None:
    """Delete all tokens of a user."""
    await db.execute("DELETE FROM login_tokens WHERE user_id = %s", (user_id,))


async def delete_expired_login_tokens(db: Connection, now_ms: int) -> None:
    """Delete the tokens that have expired."""
    await db.execute("DELETE FROM login_tokens WHERE expires_ms <= %s", (now_ms,))

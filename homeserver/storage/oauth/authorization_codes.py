"""Authorisation codes, which a client exchanges for tokens.

Owns the table `oauth_authorization_codes` (migrations/0048_oauth.sql), which has hashes, not codes.
A used code stays for a while, with the session that it gave: a second use ends that session.
"""

import msgspec
from psycopg.rows import class_row

from homeserver.storage.database.database import Connection


class StoredCode(msgspec.Struct, frozen=True):
    """What a code stands for. `oauth_session` is the session that it gave, if it was used."""

    user_id: str
    client_id: str
    redirect_uri: str
    scope: str
    code_challenge: str
    expires_ms: int
    oauth_session: int | None = None


async def insert_authorization_code(
    db: Connection, code_hash: bytes, code: StoredCode, most: int
) -> None:
    """Add a code; of the user's unused ones only the newest `most` remain."""
    await db.execute(
        """
        INSERT INTO oauth_authorization_codes
               (code_hash, user_id, client_id, redirect_uri, scope, code_challenge, expires_ms)
        VALUES (%s, %s, %s, %s, %s, %s, %s)
        """,
        (
            code_hash,
            code.user_id,
            code.client_id,
            code.redirect_uri,
            code.scope,
            code.code_challenge,
            code.expires_ms,
        ),
    )
    await db.execute(
        """
        DELETE FROM oauth_authorization_codes
         WHERE code_hash IN (SELECT code_hash
                               FROM oauth_authorization_codes
                              WHERE user_id = %s AND oauth_session IS NULL
                              ORDER BY expires_ms DESC
                             OFFSET %s)
        """,
        (code.user_id, most),
    )


async def lock_authorization_code(db: Connection, code_hash: bytes) -> StoredCode | None:
    """The code with this hash, locked until the end of the transaction."""
    async with db.cursor(row_factory=class_row(StoredCode)) as cursor:
        await cursor.execute(
            """
            SELECT user_id, client_id, redirect_uri, scope, code_challenge, expires_ms,
                   oauth_session
              FROM oauth_authorization_codes
             WHERE code_hash = %s
               FOR UPDATE
            """,
            (code_hash,),
        )
        return await cursor.fetchone()


async def use_authorization_code(db: Connection, code_hash: bytes, oauth_session: int) -> None:
    """Note the session that a code gave."""
    await db.execute(
        "UPDATE oauth_authorization_codes SET oauth_session = %s WHERE code_hash = %s",
        (oauth_session, code_hash),
    )


async def delete_unused_authorization_codes_of(db: Connection, user_id: str) -> None:
    """Delete the codes of a user that no client has used yet."""
    await db.execute(
        "DELETE FROM oauth_authorization_codes WHERE user_id = %s AND oauth_session IS NULL",
        (user_id,),
    )


async def delete_expired_authorization_codes(db: Connection, expired_ms: int) -> None:
    """Delete the codes that expired before a time."""
    await db.execute("DELETE FROM oauth_authorization_codes WHERE expires_ms <= %s", (expired_ms,))

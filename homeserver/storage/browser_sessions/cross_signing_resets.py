"""Permissions to replace the cross-signing keys of a user, which expire.

Owns the table `cross_signing_resets` (migrations/0047_browser_sessions.sql).

Spec: https://spec.matrix.org/v1.19/client-server-api/#oauth-authentication
"""

from homeserver.storage.database.database import Connection


async def allow_cross_signing_reset(db: Connection, user_id: str, expires_ms: int) -> None:
    """Add the permission of a user, or prolong it."""
    await db.execute(
        """
        INSERT INTO cross_signing_resets (user_id, expires_ms)
        VALUES (%s, %s)
            ON CONFLICT (user_id) DO UPDATE SET expires_ms = EXCLUDED.expires_ms
        """,
        (user_id, expires_ms),
    )


async def is_cross_signing_reset_allowed(db: Connection, user_id: str, now_ms: int) -> bool:
    """Whether a user has the permission, and it has not expired."""
    cursor = await db.execute(
        "SELECT FROM cross_signing_resets WHERE user_id = %s AND expires_ms > %s",
        (user_id, now_ms),
    )
    return await cursor.fetchone() is not None


async def delete_cross_signing_reset(db: Connection, user_id: str) -> None:
    """Delete the permission of a user, if there is one."""
    await db.execute("DELETE FROM cross_signing_resets WHERE user_id = %s", (user_id,))


async def delete_expired_cross_signing_resets(db: Connection, now_ms: int) -> None:
    """Delete the permissions that have expired."""
    await db.execute("DELETE FROM cross_signing_resets WHERE expires_ms <= %s", (now_ms,))

"""Blocked rooms: those that no user of this server may join.

Owns the table `blocked_rooms` (migrations/0034_retention.sql).
"""

from homeserver.storage.database.database import Connection


async def block_room(db: Connection, room_id: str, now_ms: int) -> None:
    """Block a room, whether this server knows it or not."""
    await db.execute(
        """
        INSERT INTO blocked_rooms (room_id, blocked_at) VALUES (%s, %s)
            ON CONFLICT (room_id) DO NOTHING
        """,
        (room_id, now_ms),
    )


async def unblock_room(db: Connection, room_id: str) -> bool:
    """Unblock a room; false if it was not blocked."""
    cursor = await db.execute("DELETE FROM blocked_rooms WHERE room_id = %s", (room_id,))
    return cursor.rowcount > 0


async def is_blocked(db: Connection, room_id: str) -> bool:
    """Whether a room is blocked."""
    cursor = await db.execute("SELECT FROM blocked_rooms WHERE room_id = %s", (room_id,))
    return await cursor.fetchone() is not None

"""The outbox: rooms of which other servers have not received all events.

Owns the table `outbox_rooms` (migrations/0013_federation_outbox.sql).
"""

from collections.abc import Sequence

from homeserver.storage.database.batch import BatchStatement
from homeserver.storage.database.database import Connection

INSERT_OUTBOX_ROOM = BatchStatement(
    "insert_outbox_room",
    """
    INSERT INTO outbox_rooms (destination, room, position)
    SELECT * FROM unnest(%s::text[], %s::int4[], %s::int8[])
        ON CONFLICT (destination, room) DO NOTHING
    """,
    columns=("text", "int4", "int8"),
    key=(0, 1),
)


async def destinations_behind(db: Connection) -> list[str]:
    """The destinations that have missed events."""
    cursor = await db.execute("SELECT DISTINCT destination FROM outbox_rooms")
    return [row[0] for row in await cursor.fetchall()]


async def rooms_behind(db: Connection, destination: str, limit: int) -> list[tuple[int, int]]:
    """(room, position) from which on a destination lacks events, the oldest first."""
    cursor = await db.execute(
        """
        SELECT room, position
          FROM outbox_rooms
         WHERE destination = %s
         ORDER BY position
         LIMIT %s
        """,
        (destination, limit),
    )
    return await cursor.fetchall()


async def mark_caught_up(db: Connection, destination: str, rooms: Sequence[int]) -> None:
    """Record that a destination has received all events of these rooms."""
    await db.execute(
        "DELETE FROM outbox_rooms WHERE destination = %s AND room = ANY(%s)",
        (destination, list(rooms)),
    )

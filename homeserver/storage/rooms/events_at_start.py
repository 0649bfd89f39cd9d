"""The newest events of all rooms, with which the server fills its caches at the start.

Reads the tables that `events.py` and `rooms.py` own.
"""

from homeserver.storage.database.database import Connection


async def events_since(db: Connection, event: int, limit: int) -> list[tuple[int, int]]:
    """(room, event) of the accepted events with larger numbers, except backfilled ones."""
    cursor = await db.execute(
        """
        SELECT room, event
          FROM events
         WHERE event > %s
           AND (position > 0 OR (position IS NULL AND state_before IS NOT NULL
                                 AND rejected IS NULL AND soft_failed IS NULL))
         ORDER BY event
         LIMIT %s
        """,
        (event, limit),
    )
    return await cursor.fetchall()


async def rooms_of_newest_events(db: Connection, limit: int) -> list[int]:
    """Rooms in which one of the server's `limit` newest events is."""
    cursor = await db.execute(
        """
        SELECT DISTINCT room
          FROM (SELECT room FROM events ORDER BY event DESC LIMIT %s) AS newest
        """,
        (limit,),
    )
    return [row[0] for row in await cursor.fetchall()]


async def mentioning_events_after(
    db: Connection, position: int, limit: int
) -> list[tuple[int, int, int]]:
    """(position, room, event) of the next timeline events that may mention a user."""
    cursor = await db.execute(
        """
        SELECT found.position, rooms.room, found.event
          FROM rooms
         CROSS JOIN LATERAL (SELECT position, event
                               FROM events
                              WHERE events.room = rooms.room AND position > %(position)s
                                AND position(%(word)s::bytea IN json) > 0
                              ORDER BY position
                              LIMIT %(limit)s) AS found
         ORDER BY found.position
         LIMIT %(limit)s
        """,
        {"position": position, "word": b"m.mentions", "limit": limit},
    )
    return await cursor.fetchall()

"""The newest events of all rooms, which a start of the server goes on from.

Reads the table that `homeserver/storage/events.py` owns.
"""

from homeserver.storage.database import Connection


async def events_since(db: Connection, event: int, limit: int) -> list[tuple[int, int]]:
    """(room, event) of the accepted events with larger numbers, those of the past aside."""
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

"""The newest events of all rooms, with which the server fills its caches at the start.

Reads the tables that `events.py` and `rooms.py` own.
"""

from homeserver.storage.database.database import Connection


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

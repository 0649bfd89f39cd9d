"""Pages of rooms' histories: events in the order of the graph, by (depth, position).

Reads the table that `homeserver/storage/events.py` owns.
"""

from homeserver.storage.database import Connection


async def page_backwards(
    db: Connection,
    room: int,
    place: tuple[int, int],
    limit: int,
    down_to: tuple[int, int],
    *,
    above: int,
    upto: int,
) -> list[tuple[int, int, int]]:
    """(depth, position, event) before a topological place and after `down_to`, nearest first.

    Events at positions beyond `above` and `upto`, which it includes, are left out.
    """
    cursor = await db.execute(
        """
        SELECT depth, position, event
          FROM events
         WHERE room = %s AND (depth, position) <= (%s, %s) AND (depth, position) > (%s, %s)
           AND position > %s AND position <= %s
         ORDER BY depth DESC, position DESC
         LIMIT %s
        """,
        (room, *place, *down_to, above, upto, limit),
    )
    return await cursor.fetchall()


async def page_forwards(
    db: Connection,
    room: int,
    place: tuple[int, int],
    limit: int,
    up_to: tuple[int, int],
    *,
    above: int,
    upto: int,
) -> list[tuple[int, int, int]]:
    """(depth, position, event) after a topological place and up to `up_to`, nearest first.

    Events at positions beyond `above` and `upto`, which it includes, are left out.
    """
    cursor = await db.execute(
        """
        SELECT depth, position, event
          FROM events
         WHERE room = %s AND (depth, position) > (%s, %s) AND (depth, position) <= (%s, %s)
           AND position > %s AND position <= %s
         ORDER BY depth, position
         LIMIT %s
        """,
        (room, *place, *up_to, above, upto, limit),
    )
    return await cursor.fetchall()


async def greatest_depth(db: Connection, room: int, upto: int) -> int:
    """The greatest depth of a room's events up to a position; 0 where there are none.

    It is that of a forward extremity of that time: all other events have deeper ones after them.
    """
    cursor = await db.execute(
        """
        WITH newest AS (SELECT depth, extremities
                          FROM events
                         WHERE room = %s AND position > 0 AND position <= %s
                         ORDER BY position DESC
                         LIMIT 1)
        SELECT max(depth)
          FROM (SELECT depth FROM newest
                 UNION ALL
                SELECT events.depth
                  FROM newest, jsonb_array_elements_text(newest.extremities::jsonb) AS branch (id)
                  JOIN events ON events.event_id = branch.id AND events.room = %s) AS branches
        """,
        (room, upto, room),
    )
    row = await cursor.fetchone()
    return (row[0] if row else None) or 0


async def least_depth(db: Connection, room: int, above: int) -> int | None:
    """The least depth of a room's events above a position; `None` where there are none."""
    cursor = await db.execute(
        "SELECT min(depth) FROM events WHERE room = %s AND position > %s", (room, above)
    )
    row = await cursor.fetchone()
    return row[0] if row else None

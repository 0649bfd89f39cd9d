"""Pages of rooms' histories: events in the order of the graph, by (depth, position).

Reads the table that `homeserver/storage/rooms/events.py` owns.
"""

from homeserver.storage.database.database import Connection


async def page(
    db: Connection,
    room: int,
    start: tuple[int, int],
    end: tuple[int, int],
    limit: int,
    *,
    backwards: bool,
    above: int,
    upto: int,
    past_above: int,
) -> list[tuple[int, int, int]]:
    """(depth, position, event) between two topological places, those nearest to the start first.

    The lower of the two places is exclusive. Events at positions up to `above` or beyond `upto` are
    left out too, except backfilled ones with depths above `past_above`.
    """
    # `+ 0` keeps PostgreSQL from using the index over positions. Most rooms have few events, so it
    # seems as good as the one over places, but for a large room it means to read and sort all
    # events.
    low, high = (end, start) if backwards else (start, end)
    order = "depth DESC, position DESC" if backwards else "depth, position"
    cursor = await db.execute(
        f"""
        SELECT depth, position, event
          FROM events
         WHERE room = %s AND (depth, position) > (%s, %s) AND (depth, position) <= (%s, %s)
           AND (position + 0 > %s OR (position + 0 < 0 AND depth > %s)) AND position + 0 <= %s
         ORDER BY {order}
         LIMIT %s
        """,
        (room, *low, *high, above, past_above, upto, limit),
    )
    return await cursor.fetchall()


async def greatest_depth(db: Connection, room: int, upto: int) -> int:
    """The greatest depth of a room's events up to a position; 0 if there are none.

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
                  JOIN events ON event_key(events.event_id) = event_key(branch.id)
                             AND events.event_id = branch.id AND events.room = %s) AS branches
        """,
        (room, upto, room),
    )
    row = await cursor.fetchone()
    return (row[0] if row else None) or 0


async def least_depth(db: Connection, room: int, above: int) -> int | None:
    """The least depth of a room's events above a position; `None` if there are none."""
    cursor = await db.execute(
        "SELECT min(depth) FROM events WHERE room = %s AND position > %s", (room, above)
    )
    row = await cursor.fetchone()
    return row[0] if row else None


async def depth_after(db: Connection, room: int, position: int) -> int:
    """The depth of a room's first event above a position; 0 if there is none."""
    cursor = await db.execute(
        """
        SELECT depth FROM events WHERE room = %s AND position > %s ORDER BY position LIMIT 1
        """,
        (room, position),
    )
    row = await cursor.fetchone()
    return row[0] if row else 0


async def first_message(db: Connection, room: int) -> tuple[int, int] | None:
    """(depth, position) of the first event of a room's history that is not state, if any."""
    cursor = await db.execute(
        """
        SELECT depth, position
          FROM events
         WHERE room = %s AND position IS NOT NULL AND state_key IS NULL
         ORDER BY depth, position
         LIMIT 1
        """,
        (room,),
    )
    return await cursor.fetchone()


async def first_at_depth(db: Connection, room: int, depth: int) -> tuple[int | None, int | None]:
    """The positions of a room's first event at a depth, and of the first one in the timeline."""
    cursor = await db.execute(
        """
        SELECT min(position), min(position) FILTER (WHERE position > 0)
          FROM events
         WHERE room = %s AND depth = %s
        """,
        (room, depth),
    )
    row = await cursor.fetchone()
    assert row is not None, "an aggregate has a row"
    return row

"""The timelines of all rooms in the order of the log, for readers that are behind.

Reads the tables that `events.py`, `memberships.py`, `partial_rooms.py` and `reader_positions.py`
own.
"""

from typing import Any

import psycopg

from homeserver.storage.database.database import Connection
from homeserver.storage.rooms.event_json import unpack_json

MAX_COUNTED = 100_000  # events

_PENDING = """
    CROSS JOIN LATERAL jsonb_array_elements_text(current_states.extremities::jsonb) AS branch (id)
    JOIN events ON event_key(events.event_id) = event_key(branch.id)
               AND events.event_id = branch.id AND events.room = current_states.room
               AND events.position IS NULL AND rejected IS NULL AND soft_failed IS NULL
"""


async def page_end(db: Connection, after: int, upto: int, limit: int) -> int:
    """The position up to which there are `limit` events after a position; `upto` if fewer."""
    cursor = await db.execute(
        """
        SELECT count(*), max(position)
          FROM (SELECT position
                  FROM events
                 WHERE position > %s AND position <= %s AND position > 0
                 ORDER BY position
                 LIMIT %s) AS page
        """,
        (after, upto, limit),
    )
    row = await cursor.fetchone()
    assert row is not None, "an aggregate has a row"
    return int(row[1]) if row[0] == limit else upto


async def events_between(
    db: Connection, after: int, upto: int, word: bytes = b""
) -> list[tuple[int, int, int]]:
    """(position, room, event) of timeline events, by position; those whose JSON has the word."""
    async with db.cursor(binary=True) as cursor:
        await cursor.execute(
            """
            SELECT position, room, event, CASE WHEN %(is_read)s THEN json END
              FROM events
             WHERE position > %(after)s AND position <= %(upto)s AND position > 0
             ORDER BY position
            """,
            {"after": after, "upto": upto, "is_read": bool(word)},
        )
        return [
            (position, room, event)
            for position, room, event, json in await cursor.fetchall()
            if json is None or word in unpack_json(json)
        ]


async def pending_redactions_between(
    db: Connection, after: int, upto: int
) -> list[tuple[int, int, int]]:
    """(position, room, event) of pending redactions, by the position at which they were stored.

    They have no place in the timeline; the current state of the moment names them as extremities.
    """
    cursor = await db.execute(
        f"""
        SELECT min(current_states.position), current_states.room, events.event
          FROM current_states {_PENDING}
         WHERE current_states.position > %s AND current_states.position <= %s
         GROUP BY current_states.room, events.event
        """,
        (after, upto),
    )
    return await cursor.fetchall()


async def event_entered(db: Connection, room: int, position: int) -> int | None:
    """The first event that entered a room's graph at a position or later; `None` if none has."""
    cursor = await db.execute(
        f"""
        (SELECT position, event
           FROM events
          WHERE room = %(room)s AND position >= %(position)s AND position > 0
          ORDER BY position
          LIMIT 1)
         UNION ALL
        (SELECT current_states.position, events.event
           FROM current_states {_PENDING}
          WHERE current_states.room = %(room)s AND current_states.position >= %(position)s
          ORDER BY current_states.position
          LIMIT 1)
         ORDER BY position
         LIMIT 1
        """,
        {"room": room, "position": position},
    )
    row = await cursor.fetchone()
    return row[1] if row else None


async def resolutions_between(db: Connection, after: int, upto: int) -> list[tuple[int, int]]:
    """(position, room) where the state changed otherwise than by the event at the position."""
    cursor = await db.execute(
        """
        SELECT position, room FROM current_states
         WHERE position > %(after)s AND position <= %(upto)s
         UNION
        SELECT whole_at, room FROM partial_rooms
         WHERE whole_at > %(after)s AND whole_at <= %(upto)s
         ORDER BY 1
        """,
        {"after": after, "upto": upto},
    )
    return await cursor.fetchall()


async def local_joins_between(db: Connection, after: int, upto: int) -> list[tuple[int, int, int]]:
    """(position, room, event) of the newest memberships of local users who are joined."""
    cursor = await db.execute(
        """
        SELECT memberships.position, memberships.room, memberships.event
          FROM memberships
          JOIN names ON names.nid = memberships.member
          JOIN users ON users.user_id = names.name
         WHERE memberships.position > %s AND memberships.position <= %s
           AND memberships.membership = 'join'
        """,
        (after, upto),
    )
    return await cursor.fetchall()


async def out_of_room_invites_between(
    db: Connection, after: int, upto: int
) -> list[tuple[int, int, int]]:
    """(position, room, event) of the newest memberships that are invites outside of timelines.

    These are invites to rooms that this server is not in.
    """
    cursor = await db.execute(
        """
        SELECT memberships.position, memberships.room, memberships.event
          FROM memberships
          JOIN events ON events.event = memberships.event
         WHERE memberships.position > %s AND memberships.position <= %s
           AND memberships.membership = 'invite' AND events.position IS NULL
        """,
        (after, upto),
    )
    return await cursor.fetchall()


async def full_states_between(db: Connection, after: int, upto: int) -> list[tuple[int, int]]:
    """(position, room) where the full state of a room became known."""
    cursor = await db.execute(
        "SELECT whole_at, room FROM partial_rooms WHERE whole_at > %s AND whole_at <= %s",
        (after, upto),
    )
    return await cursor.fetchall()


def events_behind(connection: psycopg.Connection[Any]) -> list[tuple[str, int]]:
    """Each reader with the number of events after its position, `MAX_COUNTED` at most."""
    return connection.execute(
        """
        SELECT reader, (SELECT count(*)
                          FROM (SELECT FROM events
                                 WHERE events.position > reader_positions.position
                                   AND events.position > 0
                                 LIMIT %s) AS later)
          FROM reader_positions
         ORDER BY reader
        """,
        (MAX_COUNTED,),
    ).fetchall()

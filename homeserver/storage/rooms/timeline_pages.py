"""The timelines of all rooms in the order of the log, for readers that are behind.

Reads the tables that `events.py`, `memberships.py`, `partial_rooms.py` and `reader_positions.py`
own.
"""

from typing import Any

import psycopg

from homeserver.storage.database.database import Connection

MAX_COUNTED = 100_000  # events


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
    cursor = await db.execute(
        """
        SELECT position, room, event
          FROM events
         WHERE position > %(after)s AND position <= %(upto)s AND position > 0
           AND (length(%(word)s::bytea) = 0 OR position(%(word)s::bytea IN json) > 0)
         ORDER BY position
        """,
        {"after": after, "upto": upto, "word": word},
    )
    return await cursor.fetchall()


async def pending_redactions_between(
    db: Connection, after: int, upto: int
) -> list[tuple[int, int, int]]:
    """(number, room, number) of pending redactions: they have no position but a number."""
    cursor = await db.execute(
        """
        SELECT event, room, event
          FROM events
         WHERE event > %s AND event <= %s
           AND position IS NULL AND state_before IS NOT NULL
           AND rejected IS NULL AND soft_failed IS NULL
         ORDER BY event
        """,
        (after, upto),
    )
    return await cursor.fetchall()


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

"""The messages of a room that a purge of its history examines, in the order of the history.

A place in the history is (depth, position). Events in no timeline have none.
"""

from collections.abc import Sequence

from homeserver.storage.database.database import Connection

_MESSAGES = """
      FROM events
     WHERE room = %(room)s AND state_key IS NULL AND position IS NOT NULL
       AND (depth, position) > (%(after)s, %(after_position)s)
       AND (depth, position) < (%(before)s, %(before_position)s)
       AND position <= %(upto)s
"""


async def messages_between(
    db: Connection, room: int, after: Sequence[int], before: Sequence[int], upto: int, limit: int
) -> list[tuple[int, int, int]]:
    """(depth, position, event) between two places, of those stored up to a position, in order."""
    cursor = await db.execute(
        f"SELECT depth, position, event {_MESSAGES} ORDER BY depth, position LIMIT %(limit)s",
        {**_bounds(room, after, before, upto), "limit": limit},
    )
    return await cursor.fetchall()


async def count_messages(
    db: Connection, room: int, before: Sequence[int], upto: int, most: int
) -> int | None:
    """The number of all that `messages_between` gives up to a place; `None` if above `most`."""
    cursor = await db.execute(
        f"SELECT count(*) FROM (SELECT {_MESSAGES} LIMIT %(limit)s) AS counted",
        {**_bounds(room, (-1, -1), before, upto), "limit": most + 1},
    )
    row = await cursor.fetchone()
    assert row is not None, "an aggregate has a row"
    return row[0] if row[0] <= most else None


async def place_in_history(db: Connection, room: int, event_id: str) -> tuple[int, int] | None:
    """The place of an event of a room, if it has one."""
    cursor = await db.execute(
        """
        SELECT depth, position FROM events
         WHERE event_key(event_id) = event_key(%(id)s) AND event_id = %(id)s AND room = %(room)s
           AND position IS NOT NULL
        """,
        {"id": event_id, "room": room},
    )
    return await cursor.fetchone()


def _bounds(room: int, after: Sequence[int], before: Sequence[int], upto: int) -> dict[str, int]:
    return {
        "room": room,
        "after": after[0],
        "after_position": after[1],
        "before": before[0],
        "before_position": before[1],
        "upto": upto,
    }

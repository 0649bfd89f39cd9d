"""The events of all rooms that the search index has to know, in the order of the log.

Reads the table that `homeserver/storage/rooms/events.py` owns. An event in a timeline comes at its
position, a backfilled or imported one where it was stored.
"""

from collections.abc import Sequence

import msgspec
from psycopg.rows import class_row

from homeserver.storage.database.database import Connection


class StoredText(msgspec.Struct, frozen=True):
    """An event of a wanted type: `logged_at` is its position in the log, `json` is packed."""

    logged_at: int
    position: int
    room: int
    event: int
    type: int
    state_key: int | None
    json: bytes
    is_redacted: bool


async def estimated_events(db: Connection) -> int | None:
    """The number of all events, as PostgreSQL estimates it; `None` if it does not know."""
    cursor = await db.execute("SELECT reltuples::int8 FROM pg_class WHERE oid = 'events'::regclass")
    row = await cursor.fetchone()
    return row[0] if row is not None and row[0] > 0 else None


async def has_events(db: Connection) -> bool:
    """Whether there are any events."""
    cursor = await db.execute("SELECT EXISTS (SELECT FROM events)")
    row = await cursor.fetchone()
    return row is not None and row[0]


async def newest_event(db: Connection) -> int:
    """The greatest number of an event."""
    cursor = await db.execute("SELECT COALESCE(max(event), 0) FROM events")
    row = await cursor.fetchone()
    assert row is not None, "an aggregate has a row"
    return int(row[0])


async def texts_end(db: Connection, after: int, upto: int, limit: int) -> int:
    """The position up to which there are `limit` events after a position; `upto` if fewer."""
    cursor = await db.execute(
        """
        SELECT count(*), max(logged_at)
          FROM ((SELECT position AS logged_at
                   FROM events
                  WHERE position > %(after)s AND position <= %(upto)s AND position > 0
                  ORDER BY position
                  LIMIT %(limit)s)
                 UNION ALL
                (SELECT COALESCE(stored_at, event) AS logged_at
                   FROM events
                  WHERE position < 0 AND COALESCE(stored_at, event) > %(after)s
                    AND COALESCE(stored_at, event) <= %(upto)s
                  ORDER BY COALESCE(stored_at, event)
                  LIMIT %(limit)s)
                 ORDER BY logged_at
                 LIMIT %(limit)s) AS page
        """,
        {"after": after, "upto": upto, "limit": limit},
    )
    row = await cursor.fetchone()
    assert row is not None, "an aggregate has a row"
    return int(row[1]) if row[0] == limit else upto


async def texts_between(
    db: Connection, after: int, upto: int, types: Sequence[int]
) -> list[StoredText]:
    """The events of these types with after < logged_at <= upto, in that order."""
    async with db.cursor(row_factory=class_row(StoredText), binary=True) as cursor:
        await cursor.execute(
            """
            SELECT position AS logged_at, position, room, event, type, state_key, json,
                   redacted_by IS NOT NULL AS is_redacted
              FROM events
             WHERE position > %(after)s AND position <= %(upto)s AND position > 0
               AND type = ANY(%(types)s)
             UNION ALL
            SELECT COALESCE(stored_at, event), position, room, event, type, state_key, json,
                   redacted_by IS NOT NULL
              FROM events
             WHERE position < 0 AND COALESCE(stored_at, event) > %(after)s
               AND COALESCE(stored_at, event) <= %(upto)s AND type = ANY(%(types)s)
             ORDER BY 1, 4
            """,
            {"after": after, "upto": upto, "types": list(types)},
        )
        return await cursor.fetchall()


async def texts_of_room(
    db: Connection, room: int, after: int, types: Sequence[int], limit: int
) -> list[StoredText]:
    """The events of these types of a room's timeline with position > after, in that order."""
    async with db.cursor(row_factory=class_row(StoredText), binary=True) as cursor:
        await cursor.execute(
            """
            SELECT CASE WHEN position > 0 THEN position ELSE COALESCE(stored_at, event) END
                     AS logged_at,
                   position, room, event, type, state_key, json,
                   redacted_by IS NOT NULL AS is_redacted
              FROM events
             WHERE room = %s AND position > %s AND type = ANY(%s)
             ORDER BY position
             LIMIT %s
            """,
            (room, after, list(types), limit),
        )
        return await cursor.fetchall()


async def texts_of(db: Connection, events: Sequence[int], types: Sequence[int]) -> list[StoredText]:
    """Those of the events that are of these types, and not redacted."""
    async with db.cursor(row_factory=class_row(StoredText), binary=True) as cursor:
        await cursor.execute(
            """
            SELECT event AS logged_at, COALESCE(position, 0) AS position, room, event, type,
                   state_key, json, false AS is_redacted
              FROM events
             WHERE event = ANY(%s) AND type = ANY(%s) AND redacted_by IS NULL
            """,
            (list(events), list(types)),
        )
        return await cursor.fetchall()


async def next_room(db: Connection, after: int) -> int | None:
    """The room with the next higher number that has a timeline."""
    cursor = await db.execute(
        """
        SELECT room FROM events
         WHERE room > %s AND position IS NOT NULL
         ORDER BY room, position
         LIMIT 1
        """,
        (after,),
    )
    row = await cursor.fetchone()
    return None if row is None else row[0]


async def redacted_among(
    db: Connection, targets: Sequence[tuple[int, str]]
) -> list[tuple[int, str, int]]:
    """(room, event id, event) of those of some (room, event id) that are redacted."""
    cursor = await db.execute(
        """
        SELECT events.room, events.event_id, events.event
          FROM unnest(%s::int4[], %s::text[]) AS target (room, event_id)
          JOIN events ON event_key(events.event_id) = event_key(target.event_id)
                     AND events.event_id = target.event_id AND events.room = target.room
         WHERE events.redacted_by IS NOT NULL
        """,
        ([room for room, _ in targets], [event_id for _, event_id in targets]),
    )
    return await cursor.fetchall()

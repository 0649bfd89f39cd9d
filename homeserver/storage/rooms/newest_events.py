"""The newest events of rooms: clients sort rooms by them, and rooms are loaded from them.

Reads the tables that `homeserver/storage/rooms/events.py` and `rooms.py` own.
"""

from collections.abc import Sequence

import msgspec

from homeserver.storage.database.database import Connection


async def listed_rooms(
    db: Connection, rooms: Sequence[int]
) -> list[tuple[int, int, str | None, bool | None]]:
    """(room, position, type, whether it is encrypted) of those of the rooms that have any events.

    The position is that of the newest timeline event. The type is '' for none; it and the last
    member are `None` where they are not known.
    """
    cursor = await db.execute(
        """
        SELECT wanted.room, newest.position, rooms.room_type, rooms.is_encrypted
          FROM unnest(%s::int4[]) AS wanted (room)
         CROSS JOIN LATERAL (SELECT position
                               FROM events
                              WHERE events.room = wanted.room AND position > 0
                              ORDER BY position DESC
                              LIMIT 1) AS newest
          LEFT JOIN rooms ON rooms.room = wanted.room
        """,
        (list(rooms),),
        binary=True,
    )
    return await cursor.fetchall()


async def newest_event_of_types(
    db: Connection, room: int, types: Sequence[int], after: int, upto: int, limit: int
) -> int | None:
    """The position of a room's newest timeline event of some types, with after < position <= upto.

    At most `limit` events are examined; if none of them is of these types, it is that of the oldest
    one. `None` if there are no events.
    """
    cursor = await db.execute(
        """
        SELECT COALESCE(max(position) FILTER (WHERE type = ANY(%s)), min(position))
          FROM (SELECT position, type
                  FROM events
                 WHERE room = %s AND position > %s AND position <= %s
                 ORDER BY position DESC
                 LIMIT %s) AS newest
        """,
        (list(types), room, after, upto, limit),
    )
    row = await cursor.fetchone()
    return row[0] if row else None


async def newest_events_in(
    db: Connection, rooms: Sequence[int], upto: int, limit: int
) -> list[tuple[int, int, int]]:
    """(position, room, event) of the newest timeline events of rooms together, newest first."""
    cursor = await db.execute(
        """
        SELECT newest.position, wanted.room, newest.event
          FROM unnest(%s::int4[]) AS wanted (room)
         CROSS JOIN LATERAL (SELECT position, event
                               FROM events
                              WHERE events.room = wanted.room
                                AND position > 0 AND position <= %s
                              ORDER BY position DESC
                              LIMIT %s) AS newest
         ORDER BY newest.position DESC
         LIMIT %s
        """,
        (list(rooms), upto, limit, limit),
    )
    return await cursor.fetchall()


async def rooms_with_events_after(db: Connection, rooms: Sequence[int], position: int) -> list[int]:
    """Those of the rooms that have timeline events above a position."""
    cursor = await db.execute(
        """
        SELECT room
          FROM unnest(%s::int4[]) AS wanted (room)
         WHERE EXISTS (SELECT FROM events
                        WHERE events.room = wanted.room AND events.position > %s)
        """,
        (list(rooms), position),
    )
    return [row[0] for row in await cursor.fetchall()]


async def rooms_of_newest_events(db: Connection, limit: int) -> list[int]:
    """Rooms in which one of the server's `limit` newest events is: those that caches begin with."""
    cursor = await db.execute(
        """
        SELECT DISTINCT room
          FROM (SELECT room FROM events ORDER BY event DESC LIMIT %s) AS newest
        """,
        (limit,),
    )
    return [row[0] for row in await cursor.fetchall()]


class TimelineHead(msgspec.Struct, frozen=True):
    """The end of a room's timeline, and its current state.

    `newest` are (position, event) of the newest timeline events, newest first; `root` is that of
    the current state, `None` before the first event; `forked_at` is the newest position at which
    the current state was a resolved one, or 0. `extremities` are the forward extremities as JSON,
    `None` if the newest event is the only one.
    """

    newest: Sequence[tuple[int, int]]
    root: bytes | None
    forked_at: int
    extremities: str | None


NO_EVENTS = TimelineHead((), None, 0, None)


async def timeline_heads(
    db: Connection, rooms: Sequence[int], limit: int
) -> dict[int, TimelineHead]:
    """The ends of the timelines of rooms, with at most `limit` events of each.

    Rooms without any event are left out.
    """
    async with db.cursor(binary=True) as cursor:
        await cursor.execute(
            """
            SELECT wanted.room, newest.*
              FROM unnest(%(rooms)s::int4[]) AS wanted (room)
             CROSS JOIN LATERAL (
                   (SELECT position, event, extremities, COALESCE(state_after, state_before)
                      FROM events
                     WHERE events.room = wanted.room AND position > 0
                     ORDER BY position DESC
                     LIMIT %(limit)s)
                    UNION ALL
                   (SELECT position, NULL, extremities, root
                      FROM current_states
                     WHERE current_states.room = wanted.room
                     ORDER BY position DESC
                     LIMIT 1)) AS newest
            """,
            {"rooms": list(rooms), "limit": limit},
        )
        by_room: dict[int, list[_Row]] = {}
        for room, *row in await cursor.fetchall():
            by_room.setdefault(room, []).append(tuple(row))
    return {room: _head(rows) for room, rows in by_room.items()}


_Row = tuple[int, int | None, str | None, bytes | None]  # position, event, extremities, root


def _head(rows: list[_Row]) -> TimelineHead:
    # At the position of an event, a resolved state is newer than the state after that event.
    by_age = sorted(rows, key=lambda row: (row[0], row[1] is None), reverse=True)
    newest = [(position, event) for position, event, *_ in by_age if event is not None]
    forks = [position for position, event, *_ in by_age if event is None]
    last = max(rows, key=lambda row: (row[0], row[1] is not None))
    return TimelineHead(newest, by_age[0][3], max(forks, default=0), last[2])

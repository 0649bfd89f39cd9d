"""Queries over many events at once: for room inspection, garbage collection and state resolution.

Reads the tables of `homeserver/storage/rooms/events.py`, which alone writes them.
"""

from collections.abc import Sequence

import msgspec
from msgspec.structs import astuple
from psycopg.rows import class_row

from homeserver.storage.database.database import Connection


class StatusCounts(msgspec.Struct, frozen=True):
    """The number of a room's events of each kind; every event is counted once."""

    timeline: int
    backfilled: int
    outliers: int
    redaction_pending: int
    soft_failed: int
    rejected: int

    @property
    def total(self) -> int:
        return sum(astuple(self))


async def count_by_status(db: Connection, room: int) -> StatusCounts:
    """Count the events of a room by their check results."""
    async with db.cursor(row_factory=class_row(StatusCounts)) as cursor:
        await cursor.execute(
            """
            SELECT count(*) FILTER (WHERE position > 0) AS timeline,
                   count(*) FILTER (WHERE position < 0) AS backfilled,
                   count(*) FILTER (WHERE position IS NULL AND rejected IS NULL
                                      AND state_before IS NULL) AS outliers,
                   count(*) FILTER (WHERE position IS NULL AND rejected IS NULL
                                      AND state_before IS NOT NULL AND soft_failed IS NULL)
                     AS redaction_pending,
                   count(*) FILTER (WHERE position IS NULL AND rejected IS NULL
                                      AND soft_failed IS NOT NULL) AS soft_failed,
                   count(*) FILTER (WHERE position IS NULL AND rejected IS NOT NULL) AS rejected
              FROM events
             WHERE room = %s
            """,
            (room,),
        )
        found = await cursor.fetchone()
    assert found is not None, "an aggregate has one row"
    return found


async def events_to_recheck(
    db: Connection, room: int, since: int, after: int, limit: int
) -> list[tuple[int, int]]:
    """(place, event) of the non-outliers received at a position or later, in that order.

    The place is the position in the timeline; for events without one, and backfilled ones, the
    position at which they were stored. All rejected and soft-failed events of the room are
    included. The page starts after the place `after`.
    """
    cursor = await db.execute(
        """
        SELECT place, event
          FROM (SELECT CASE WHEN position > 0 THEN position ELSE COALESCE(stored_at, event) END
                         AS place, event
                  FROM events
                 WHERE room = %s AND state_before IS NOT NULL
                   AND (position >= %s OR position IS NULL
                        OR (position < 0 AND COALESCE(stored_at, event) > %s))
               ) AS candidates
         WHERE place > %s
         ORDER BY place
         LIMIT %s
        """,
        (room, since, since, after, limit),
    )
    return await cursor.fetchall()


async def accepted_state(
    db: Connection, room: int, event_ids: Sequence[str]
) -> list[tuple[int, int, int]]:
    """(type, state key, number) of the state events among these that were not rejected."""
    cursor = await db.execute(
        """
        SELECT type, state_key, event
          FROM events
         WHERE event_key(event_id) = ANY(event_keys(%(ids)s)) AND event_id = ANY(%(ids)s)
           AND room = %(room)s AND state_key IS NOT NULL AND rejected IS NULL
        """,
        {"ids": list(event_ids), "room": room},
    )
    return await cursor.fetchall()


async def refusals(db: Connection, room: int, limit: int) -> list[tuple[bool, str, int]]:
    """(whether rejected or else soft-failed, the rule, number of events), most events first."""
    cursor = await db.execute(
        """
        SELECT rejected IS NOT NULL, split_part(COALESCE(rejected, soft_failed), ':', 1), count(*)
          FROM events
         WHERE room = %s AND position IS NULL AND COALESCE(rejected, soft_failed) IS NOT NULL
         GROUP BY 1, 2
         ORDER BY 3 DESC, 1, 2
         LIMIT %s
        """,
        (room, limit),
    )
    return await cursor.fetchall()


async def newest_in_graph(db: Connection, room: int, limit: int) -> list[int]:
    """The newest events of the graph, including those that no sync returns, newest first.

    By order of arrival: other servers state the depths, and a false one could fill the whole view.
    """
    cursor = await db.execute(
        """
        SELECT event
          FROM ((SELECT event, position AS place
                   FROM events
                  WHERE room = %(room)s AND position IS NOT NULL
                  ORDER BY position DESC
                  LIMIT %(limit)s)
                 UNION ALL
                (SELECT event, COALESCE(stored_at, event)
                   FROM events
                  WHERE room = %(room)s AND position IS NULL AND state_before IS NOT NULL
                  ORDER BY event DESC
                  LIMIT %(limit)s)) AS newest
         ORDER BY place DESC
         LIMIT %(limit)s
        """,
        {"room": room, "limit": limit},
    )
    return [row[0] for row in await cursor.fetchall()]


async def nearest_in_graph(
    db: Connection, room: int, depth: int, event: int, before: int, after: int
) -> list[int]:
    """So many events up to an event and after it by depth, with any check result."""
    cursor = await db.execute(
        """
        (SELECT event
           FROM events
          WHERE room = %(room)s AND (depth, event) <= (%(depth)s, %(event)s)
          ORDER BY depth DESC, event DESC
          LIMIT %(before)s)
         UNION ALL
        (SELECT event
           FROM events
          WHERE room = %(room)s AND (depth, event) > (%(depth)s, %(event)s)
          ORDER BY depth, event
          LIMIT %(after)s)
        """,
        {"room": room, "depth": depth, "event": event, "before": before, "after": after},
    )
    return [row[0] for row in await cursor.fetchall()]


async def known_events(db: Connection, room: int, event_ids: Sequence[str]) -> dict[str, bool]:
    """Those of the events that a room has; `True` for outliers."""
    cursor = await db.execute(
        """
        SELECT event_id, state_before IS NULL
          FROM events
         WHERE event_key(event_id) = ANY(event_keys(%(ids)s)) AND event_id = ANY(%(ids)s)
           AND room = %(room)s
        """,
        {"ids": list(event_ids), "room": room},
    )
    return dict(await cursor.fetchall())


async def roots_of_events(
    db: Connection, after: int, limit: int
) -> list[tuple[int, bytes | None, bytes | None]]:
    """(event, root before, root after) of the next events in the order of their numbers."""
    async with db.cursor(binary=True) as cursor:
        await cursor.execute(
            """
            SELECT event, state_before, state_after
              FROM events
             WHERE event > %s
             ORDER BY event
             LIMIT %s
            """,
            (after, limit),
        )
        return await cursor.fetchall()


async def roots_of_rooms(
    db: Connection, after: tuple[int, int], limit: int
) -> list[tuple[int, int, bytes]]:
    """(room, position, root) of the next current states that no event has."""
    async with db.cursor(binary=True) as cursor:
        await cursor.execute(
            """
            SELECT room, position, root
              FROM current_states
             WHERE (room, position) > (%s, %s)
             ORDER BY room, position
             LIMIT %s
            """,
            (*after, limit),
        )
        return await cursor.fetchall()


async def state_entries(db: Connection, events: Sequence[int]) -> list[tuple[int, str, int, int]]:
    """(event, event id, type, state key) of those of the events that are state events."""
    cursor = await db.execute(
        "SELECT event, event_id, type, state_key FROM events"
        " WHERE event = ANY(%s::int8[]) AND state_key IS NOT NULL",
        (list(events),),
    )
    return await cursor.fetchall()

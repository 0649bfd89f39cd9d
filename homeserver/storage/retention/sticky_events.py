"""Sticky events: what a start has to know of those that still stick, of all rooms.

Owns the table `sticky_events` (migrations/0042_sticky_events.sql). Times are ms since the epoch.
"""

from typing import NamedTuple

from homeserver.storage.database.batch import BatchStatement
from homeserver.storage.database.database import Connection

UPSERT_STICKY_EVENT = BatchStatement(
    "upsert_sticky_event",
    """
    INSERT INTO sticky_events (event, room, position, until_ms)
    SELECT * FROM unnest(%s::int8[], %s::int4[], %s::int8[], %s::int8[])
        ON CONFLICT (event) DO UPDATE SET position = excluded.position
    """,
    columns=("int8", "int4", "int8", "int8"),
    key=(0,),
)


class StickyEventRow(NamedTuple):
    """One sticky event: its nid, that of its room, its place, its end, sender and size in bytes."""

    event: int
    room: int
    position: int | None
    until_ms: int
    sender: str
    size: int


async def sticky_events_after(
    db: Connection, now_ms: int, event: int, limit: int
) -> list[StickyEventRow]:
    """Up to `limit` events above a nid that still stick, in the order of their nids."""
    cursor = await db.execute(
        """
        SELECT event, sticky.room, sticky.position, until_ms, names.name, event_json_size(json)
          FROM sticky_events AS sticky
          JOIN events USING (event)
          JOIN names ON names.nid = events.sender
         WHERE until_ms > %s AND event > %s
         ORDER BY event
         LIMIT %s
        """,
        (now_ms, event, limit),
    )
    return [StickyEventRow(*row) for row in await cursor.fetchall()]


async def delete_ended_sticky_events(db: Connection, now_ms: int) -> None:
    """Delete the rows of events that stick no longer."""
    await db.execute("DELETE FROM sticky_events WHERE until_ms <= %s", (now_ms,))

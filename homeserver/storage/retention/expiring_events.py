"""Expiring events: the events whose content is deleted at a time that their sender chose.

Owns the table `expiring_events` (migrations/0034_retention.sql).
"""

from collections.abc import Sequence

from homeserver.storage.database.batch import BatchStatement
from homeserver.storage.database.database import Connection

INSERT_EXPIRING_EVENT = BatchStatement(
    "insert_expiring_event",
    """
    INSERT INTO expiring_events (event, room, due)
    SELECT * FROM unnest(%s::int8[], %s::int4[], %s::int8[])
        ON CONFLICT (event) DO NOTHING
    """,
    columns=("int8", "int4", "int8"),
)

DELETE_EXPIRING_EVENT = BatchStatement(
    "delete_expiring_event",
    "DELETE FROM expiring_events WHERE event = ANY (SELECT * FROM unnest(%s::int8[]))",
    columns=("int8",),
    late=True,
)


async def delete_expiring_events(db: Connection, events: Sequence[int]) -> None:
    """Delete rows, whatever became of their events."""
    await db.execute("DELETE FROM expiring_events WHERE event = ANY(%s)", (list(events),))


async def earliest_expiry(db: Connection) -> int | None:
    """When the first of the events expires, in ms."""
    cursor = await db.execute("SELECT min(due) FROM expiring_events")
    row = await cursor.fetchone()
    return row[0] if row else None


async def expired_events(db: Connection, now_ms: int, limit: int) -> list[tuple[int, int]]:
    """(room, event) of events that have expired, the earliest first."""
    cursor = await db.execute(
        "SELECT room, event FROM expiring_events WHERE due <= %s ORDER BY due LIMIT %s",
        (now_ms, limit),
    )
    return await cursor.fetchall()

"""The outbox: rooms of which other servers have not received all events.

Owns the table `outbox_rooms` (migrations/0013_federation_outbox.sql, 0042_sticky_events.sql).
"""

from collections.abc import Sequence
from typing import NamedTuple

from homeserver.storage.database.batch import BatchStatement
from homeserver.storage.database.database import Connection

# Rows that say as much already are left alone, and not even locked; the others are locked in the
# order of their keys, as in `mark_caught_up`: the log must never be the victim of a deadlock.
UPSERT_OUTBOX_ROOM = BatchStatement(
    "upsert_outbox_room",
    """
    INSERT INTO outbox_rooms AS known (destination, room, position, sticky_from)
    SELECT destination, room, min(position), min(sticky_from)
      FROM unnest(%s::text[], %s::int4[], %s::int8[], %s::int8[])
        AS missed (destination, room, position, sticky_from)
     WHERE NOT EXISTS (
               SELECT FROM outbox_rooms AS known
                WHERE known.destination = missed.destination AND known.room = missed.room
                  AND known.sticky_from <= missed.sticky_from
                  AND (missed.position IS NULL OR known.position <= missed.position))
     GROUP BY destination, room
     ORDER BY destination, room
        ON CONFLICT (destination, room) DO UPDATE
       SET position = least(known.position, excluded.position),
           sticky_from = least(known.sticky_from, excluded.sticky_from)
    """,
    columns=("text", "int4", "int8", "int8"),
)


class RoomBehind(NamedTuple):
    """A room of which a destination lacks events: all from a position on, if there is one, and the
    sticky ones from another.
    """

    room: int
    position: int | None
    sticky_from: int


async def destinations_behind(db: Connection) -> list[str]:
    """The destinations that have missed events."""
    cursor = await db.execute("SELECT DISTINCT destination FROM outbox_rooms")
    return [row[0] for row in await cursor.fetchall()]


async def rooms_behind(db: Connection, destination: str, limit: int) -> list[RoomBehind]:
    """The rooms of which a destination lacks events, those first that it has lacked longest."""
    cursor = await db.execute(
        """
        SELECT room, position, sticky_from
          FROM outbox_rooms
         WHERE destination = %s
         ORDER BY sticky_from
         LIMIT %s
        """,
        (destination, limit),
    )
    return [RoomBehind(*row) for row in await cursor.fetchall()]


async def resume_sticky(db: Connection, destination: str, room: int, position: int) -> None:
    """Record that a destination has received the sticky events of a room up to a position."""
    await db.execute(
        """
        UPDATE outbox_rooms SET sticky_from = %s
         WHERE destination = %s AND room = %s AND sticky_from < %s
        """,
        (position, destination, room, position),
    )


async def mark_caught_up(db: Connection, destination: str, rooms: Sequence[int]) -> None:
    """Record that a destination has received all events of these rooms."""
    await db.execute(
        """
        WITH locked AS (
            SELECT room FROM outbox_rooms
             WHERE destination = %(destination)s AND room = ANY(%(rooms)s)
             ORDER BY room
               FOR UPDATE)
        DELETE FROM outbox_rooms USING locked
         WHERE destination = %(destination)s AND outbox_rooms.room = locked.room
        """,
        {"destination": destination, "rooms": list(rooms)},
    )

"""Receipts: the latest event that each user has read in each room.

Owns the table `receipts` (migrations/0005_receipts.sql), which has one row for each room, user,
receipt type and thread. The thread of an unthreaded receipt is the empty string.
"""

from collections.abc import Collection
from typing import NamedTuple

from homeserver.storage.database.batch import BatchStatement
from homeserver.storage.database.database import Connection

# Sorted, so that two processes never deadlock.
UPSERT_RECEIPT = BatchStatement(
    "upsert_receipt",
    """
    INSERT INTO receipts (room, member, receipt_type, thread_id, event_id, event_position, ts,
                          position)
    SELECT * FROM unnest(%s::int4[], %s::int4[], %s::text[], %s::text[], %s::text[], %s::int8[],
                         %s::int8[], %s::int8[])
     ORDER BY 1, 2, 3, 4
        ON CONFLICT (room, member, receipt_type, thread_id) DO UPDATE
       SET event_id = EXCLUDED.event_id, event_position = EXCLUDED.event_position,
           ts = EXCLUDED.ts, position = EXCLUDED.position
     WHERE receipts.position < EXCLUDED.position
    """,
    columns=("int4", "int4", "text", "text", "text", "int8", "int8", "int8"),
    key=(0, 1, 2, 3),
)


class ReceiptRow(NamedTuple):
    """One receipt of a room; `member` is the number of the user's name."""

    room: int
    member: int
    receipt_type: str
    thread_id: str
    event_id: str
    event_position: int | None
    ts: int
    position: int


async def receipts_in(db: Connection, rooms: Collection[int]) -> list[ReceiptRow]:
    """All receipts of rooms, least recently changed first."""
    cursor = await db.execute(
        """
        SELECT room, member, receipt_type, thread_id, event_id, event_position, ts, position
          FROM receipts
         WHERE room = ANY(%s::int4[])
         ORDER BY position
        """,
        (list(rooms),),
        binary=True,
    )
    return [ReceiptRow(*row) for row in await cursor.fetchall()]


async def rooms_with_receipts_after(
    db: Connection, rooms: Collection[int], position: int
) -> set[int]:
    """Those of the rooms in which a receipt changed above a log position."""
    cursor = await db.execute(
        """
        SELECT room
          FROM unnest(%s::int4[]) AS wanted (room)
         WHERE EXISTS (SELECT FROM receipts
                        WHERE receipts.room = wanted.room AND receipts.position > %s)
        """,
        (list(rooms), position),
    )
    return {row[0] for row in await cursor.fetchall()}

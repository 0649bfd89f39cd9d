"""Partial-state rooms: joined without their members, until the full state arrives.

Owns the table `partial_rooms` (migrations/0018_partial_state.sql).
"""

from collections.abc import Sequence
from typing import Any

import msgspec
import psycopg

from homeserver.storage.database.batch import BatchStatement, Row
from homeserver.storage.database.database import Connection

LEFT = -1  # in place of a position

INSERT_PARTIAL_ROOM = BatchStatement(
    "insert_partial_room",
    """
    INSERT INTO partial_rooms (room, event_id, servers)
    SELECT * FROM unnest(%s::int4[], %s::text[], %s::text[])
        ON CONFLICT (room) DO UPDATE
       SET event_id = EXCLUDED.event_id, servers = EXCLUDED.servers, whole_at = NULL
    """,
    columns=("int4", "text", "text"),
    key=(0,),
)

COMPLETE_PARTIAL_ROOM = BatchStatement(
    "complete_partial_room",
    """
    UPDATE partial_rooms SET whole_at = whole.position, servers = '[]'
      FROM unnest(%s::int4[], %s::text[], %s::int8[]) AS whole (room, event_id, position)
     WHERE partial_rooms.room = whole.room AND partial_rooms.event_id = whole.event_id
    """,
    columns=("int4", "text", "int8"),
    key=(0, 1),
    late=True,
)

LEAVE_PARTIAL_ROOM = BatchStatement(
    "leave_partial_room",
    """
    UPDATE partial_rooms SET whole_at = -1
      FROM unnest(%s::int4[], %s::text[]) AS left_room (room, event_id)
     WHERE partial_rooms.room = left_room.room AND partial_rooms.event_id = left_room.event_id
    """,
    columns=("int4", "text"),
    key=(0, 1),
    late=True,
)

DELETE_PARTIAL_ROOM = BatchStatement(
    "delete_partial_room",
    "DELETE FROM partial_rooms WHERE room = ANY (SELECT * FROM unnest(%s::int4[]))",
    columns=("int4",),
    late=True,
)


class PartialRoomRow(msgspec.Struct, frozen=True):
    """A room joined with partial state; `full_state_at` is `None` until its full state arrives.

    It is -1 if the room was left before the full state arrived.
    """

    event_id: str
    servers: Sequence[str]
    full_state_at: int | None


def partial_room_row(room: int, event_id: str, servers: Sequence[str]) -> Row:
    """The row of a room that is joined with partial state."""
    return INSERT_PARTIAL_ROOM.row(room, event_id, msgspec.json.encode(servers).decode())


async def partial_rooms(db: Connection, rooms: Sequence[int]) -> dict[int, PartialRoomRow]:
    """The rows of those of the rooms that were joined with partial state."""
    cursor = await db.execute(
        "SELECT room, event_id, servers, whole_at FROM partial_rooms WHERE room = ANY(%s::int4[])",
        (list(rooms),),
    )
    return {
        room: PartialRoomRow(event_id, msgspec.json.decode(servers, type=list[str]), whole_at)
        for room, event_id, servers, whole_at in await cursor.fetchall()
    }


async def unfinished_rooms(db: Connection) -> list[int]:
    """Numbers of the rooms whose full state is still to be fetched."""
    cursor = await db.execute("SELECT room FROM partial_rooms WHERE whole_at IS NULL ORDER BY room")
    return [row[0] for row in await cursor.fetchall()]


def count_unfinished(connection: psycopg.Connection[Any]) -> int:
    """The number of rooms whose full state is yet to be fetched; for callers without a reactor."""
    row = connection.execute("SELECT count(*) FROM partial_rooms WHERE whole_at IS NULL").fetchone()
    return row[0] if row else 0


async def rooms_with_full_state_after(
    db: Connection, rooms: Sequence[int], position: int
) -> list[int]:
    """Those of the rooms whose full state arrived above a position."""
    cursor = await db.execute(
        "SELECT room FROM partial_rooms WHERE room = ANY(%s) AND whole_at > %s",
        (list(rooms), position),
    )
    return [row[0] for row in await cursor.fetchall()]

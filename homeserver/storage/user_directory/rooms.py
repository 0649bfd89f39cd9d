"""Rooms in the user directory: who may see their members, and how far they are indexed.

Owns the table `user_directory_rooms` (migrations/0035_user_directory.sql). A room has a row once it
was looked at; until it is complete, a restart begins with it again.
"""

from typing import Literal

import msgspec
from psycopg.rows import class_row

from homeserver.storage.database.database import Connection

Visibility = Literal["nobody", "members", "everybody"]


class IndexedRoom(msgspec.Struct, frozen=True):
    """A room as the directory has it."""

    visibility: Visibility
    is_complete: bool


async def indexed_room(db: Connection, room: int) -> IndexedRoom | None:
    """A room, if it was looked at already."""
    async with db.cursor(row_factory=class_row(IndexedRoom)) as cursor:
        await cursor.execute(
            "SELECT visibility, is_complete FROM user_directory_rooms WHERE room = %s", (room,)
        )
        return await cursor.fetchone()


async def set_indexed_room(db: Connection, room: int, indexed: IndexedRoom) -> None:
    """Record who may see the members of a room, and whether all of them have their entries."""
    await db.execute(
        """
        INSERT INTO user_directory_rooms (room, visibility, is_complete)
        VALUES (%s, %s, %s)
            ON CONFLICT (room) DO UPDATE
           SET visibility = EXCLUDED.visibility, is_complete = EXCLUDED.is_complete
        """,
        (room, indexed.visibility, indexed.is_complete),
    )


async def rooms_to_index(db: Connection, after: int, limit: int) -> tuple[list[int], int | None]:
    """The next rooms that are not complete, and the last room that was looked at.

    `limit` rooms after `after` are looked at; the last one is `None` if there are none.
    """
    cursor = await db.execute(
        """
        SELECT page.room, NOT COALESCE(is_complete, false)
          FROM (SELECT room FROM rooms WHERE room > %s ORDER BY room LIMIT %s) AS page
          LEFT JOIN user_directory_rooms USING (room)
         ORDER BY page.room
        """,
        (after, limit),
    )
    page = await cursor.fetchall()
    return [room for room, is_wanted in page if is_wanted], page[-1][0] if page else None

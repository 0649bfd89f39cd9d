"""Rooms that this server knows.

Owns the table `rooms` (migrations/0004_rooms.sql); a room's number is that of its id in `names`.
"""

from dataclasses import dataclass

from psycopg.rows import class_row

from homeserver.storage.database.batch import BatchStatement
from homeserver.storage.database.database import Connection

# The first source is right about the version: an invite from another server may claim any, and a
# room that is known to have another version is not joined (`Rooms.entering`).
INSERT_ROOM = BatchStatement(
    "insert_room",
    """
    INSERT INTO rooms (room, version, creator)
    SELECT * FROM unnest(%s::int4[], %s::text[], %s::int4[])
        ON CONFLICT (room) DO NOTHING
    """,
    columns=("int4", "text", "int4"),
)

# Late, because a room may be listed by the commit that creates it.
SET_PUBLISHED = BatchStatement(
    "set_room_published",
    """
    UPDATE rooms SET published = listing.published
      FROM unnest(%s::int4[], %s::bool[]) AS listing (room, published)
     WHERE rooms.room = listing.room
    """,
    columns=("int4", "bool"),
    key=(0,),
    late=True,
)


@dataclass(frozen=True, slots=True)
class RoomRow:
    """A room's number, its version, and whether it is in the public directory."""

    room: int
    version: str
    published: bool


async def find_room(db: Connection, room: int) -> RoomRow | None:
    """The room with this number, if the server is or was in it."""
    async with db.cursor(row_factory=class_row(RoomRow)) as cursor:
        await cursor.execute("SELECT room, version, published FROM rooms WHERE room = %s", (room,))
        return await cursor.fetchone()


async def published_rooms(db: Connection) -> list[int]:
    """Numbers of all rooms in the public directory."""
    cursor = await db.execute("SELECT room FROM rooms WHERE published ORDER BY room")
    return [row[0] for row in await cursor.fetchall()]

"""Rooms that this server knows.

Owns the table `rooms` (migrations/0004_rooms.sql and 0040_sliding_sync.sql); a room's number is
that of its id in `names`.
"""

from collections.abc import Sequence

import msgspec

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

SET_ROOM_TYPE = BatchStatement(
    "set_room_type",
    """
    UPDATE rooms SET room_type = new.room_type
      FROM unnest(%s::int4[], %s::text[]) AS new (room, room_type)
     WHERE rooms.room = new.room
    """,
    columns=("int4", "text"),
    key=(0,),
    late=True,
)

SET_ENCRYPTED = BatchStatement(
    "set_room_encrypted",
    """
    UPDATE rooms SET is_encrypted = new.is_encrypted
      FROM unnest(%s::int4[], %s::bool[]) AS new (room, is_encrypted)
     WHERE rooms.room = new.room
    """,
    columns=("int4", "bool"),
    key=(0,),
    late=True,
)


class RoomRow(msgspec.Struct, frozen=True):
    """A room's number, its version, and whether it is in the public directory."""

    room: int
    version: str
    published: bool


async def find_room(db: Connection, room: int) -> RoomRow | None:
    """The room with this number, if the server is or was in it."""
    found = await find_rooms(db, [room])
    return found[0] if found else None


async def find_rooms(db: Connection, rooms: Sequence[int]) -> list[RoomRow]:
    """Those of the rooms with these numbers that the server is or was in."""
    cursor = await db.execute(
        "SELECT room, version, published FROM rooms WHERE room = ANY(%s::int4[])",
        (list(rooms),),
        binary=True,
    )
    return [RoomRow(*row) for row in await cursor.fetchall()]


async def published_rooms(db: Connection) -> list[int]:
    """Numbers of all rooms in the public directory."""
    cursor = await db.execute("SELECT room FROM rooms WHERE published ORDER BY room")
    return [row[0] for row in await cursor.fetchall()]


async def complete_traits(db: Connection, room: int, room_type: str, is_encrypted: bool) -> None:
    """Store what the table does not know of a room. One row at a time: no two can deadlock."""
    await db.execute(
        """
        UPDATE rooms
           SET room_type = COALESCE(room_type, %s), is_encrypted = COALESCE(is_encrypted, %s)
         WHERE room = %s
        """,
        (room_type, is_encrypted, room),
    )

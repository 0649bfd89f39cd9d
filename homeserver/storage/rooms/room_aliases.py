"""Room aliases of this server.

Owns the table `room_aliases` (migrations/0004_rooms.sql). Rooms and creators are numbers of
`names`.
"""

import msgspec
from psycopg.rows import class_row

from homeserver.storage.database.batch import BatchStatement
from homeserver.storage.database.database import Connection

INSERT_ALIAS = BatchStatement(
    "insert_alias",
    """
    INSERT INTO room_aliases (alias, room, creator, created_at)
    SELECT * FROM unnest(%s::text[], %s::int4[], %s::int4[], %s::int8[])
        ON CONFLICT (alias) DO UPDATE
       SET created_at = refuse_taken_key('room_aliases', room_aliases.alias)
     WHERE room_aliases.room <> EXCLUDED.room
    """,
    columns=("text", "int4", "int4", "int8"),
)

MOVE_ALIASES = BatchStatement(
    "move_aliases",
    """
    UPDATE room_aliases SET room = moved.successor
      FROM unnest(%s::int4[], %s::int4[]) AS moved (room, successor)
     WHERE room_aliases.room = moved.room
    """,
    columns=("int4", "int4"),
    key=(0,),
)


class AliasRow(msgspec.Struct, frozen=True):
    """An alias: the room that it points to, and its creator."""

    alias: str
    room: int
    creator: int


async def add_alias(db: Connection, alias: str, room: int, creator: int, created_at: int) -> bool:
    """Point a new alias to a room; false if the alias exists already. `created_at` in ms."""
    cursor = await db.execute(
        """
        INSERT INTO room_aliases (alias, room, creator, created_at)
        VALUES (%s, %s, %s, %s)
            ON CONFLICT (alias) DO NOTHING
        """,
        (alias, room, creator, created_at),
    )
    return cursor.rowcount == 1


async def find_alias(db: Connection, alias: str) -> AliasRow | None:
    """The alias, or `None` if there is none of this name."""
    async with db.cursor(row_factory=class_row(AliasRow)) as cursor:
        await cursor.execute(
            "SELECT alias, room, creator FROM room_aliases WHERE alias = %s", (alias,)
        )
        return await cursor.fetchone()


async def aliases_of(db: Connection, room: int) -> list[str]:
    """All aliases of a room, sorted."""
    cursor = await db.execute(
        "SELECT alias FROM room_aliases WHERE room = %s ORDER BY alias", (room,)
    )
    return [row[0] for row in await cursor.fetchall()]


async def all_aliases(db: Connection, after: str, limit: int) -> list[AliasRow]:
    """A page of all aliases, by name, beginning after `after`."""
    async with db.cursor(row_factory=class_row(AliasRow)) as cursor:
        await cursor.execute(
            """
            SELECT alias, room, creator FROM room_aliases
             WHERE alias > %s ORDER BY alias LIMIT %s
            """,
            (after, limit),
        )
        return await cursor.fetchall()


async def move_aliases(db: Connection, room: int, successor: int) -> None:
    """Make all aliases of a room point to another one."""
    await db.execute("UPDATE room_aliases SET room = %s WHERE room = %s", (successor, room))


async def delete_alias(db: Connection, alias: str) -> None:
    """Remove an alias."""
    await db.execute("DELETE FROM room_aliases WHERE alias = %s", (alias,))

"""Reader positions: how far each durable reader of the log has come.

Owns the table `reader_positions` (migrations/0024_reader_positions.sql).
"""

from homeserver.storage.database.batch import BatchStatement
from homeserver.storage.database.database import Connection

ALL_SHARDS = -1  # those that have no row of their own

MOVE_READER = BatchStatement(
    "move_reader",
    f"""
    INSERT INTO reader_positions (reader, shard, position)
    SELECT reader, {ALL_SHARDS}, position
      FROM unnest(%s::text[], %s::int8[]) AS moved (reader, position)
        ON CONFLICT (reader, shard) DO UPDATE SET position = EXCLUDED.position
     WHERE reader_positions.position < EXCLUDED.position
    """,
    columns=("text", "int8"),
    key=(0,),
)
"""A reader has handled everything up to a position."""


async def reader_position(db: Connection, reader: str) -> int | None:
    """The position up to which a reader has handled everything; `None` for a new one."""
    cursor = await db.execute(
        "SELECT position FROM reader_positions WHERE reader = %s AND shard = %s",
        (reader, ALL_SHARDS),
    )
    row = await cursor.fetchone()
    return row[0] if row else None


async def set_reader_position(db: Connection, reader: str, position: int) -> None:
    """Have a reader, which must not be running, continue after a position, earlier or later."""
    await db.execute(
        """
        INSERT INTO reader_positions (reader, shard, position) VALUES (%s, %s, %s)
            ON CONFLICT (reader, shard) DO UPDATE SET position = EXCLUDED.position
        """,
        (reader, ALL_SHARDS, position),
    )

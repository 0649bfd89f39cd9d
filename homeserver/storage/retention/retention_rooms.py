"""The rooms that say how long their messages are kept, and the messages that are old enough.

Owns the table `retention_rooms` (migrations/0034_retention.sql): the rooms that have, or had, such
a policy in their state.
"""

from homeserver.storage.database.batch import BatchStatement
from homeserver.storage.database.database import Connection

INSERT_RETENTION_ROOM = BatchStatement(
    "insert_retention_room",
    """
    INSERT INTO retention_rooms (room) SELECT * FROM unnest(%s::int4[])
        ON CONFLICT (room) DO NOTHING
    """,
    columns=("int4",),
    key=(0,),
)


async def next_retention_room(
    db: Connection, after: int, *, of_all: bool
) -> tuple[int, bool] | None:
    """The next room above a nid that may have a policy, or `of_all` the server has; and whether it
    may have one.
    """
    table = "rooms" if of_all else "retention_rooms"
    cursor = await db.execute(
        f"""
        SELECT room, room IN (SELECT room FROM retention_rooms)
          FROM {table}
         WHERE room > %s
         ORDER BY room
         LIMIT 1
        """,
        (after,),
    )
    return await cursor.fetchone()


async def old_messages(
    db: Connection, room: int, after: int, upto: int, limit: int
) -> list[tuple[int, int]]:
    """(position, event) of events that are no state, with after < position <= upto, in order."""
    cursor = await db.execute(
        """
        SELECT position, event
          FROM events
         WHERE room = %s AND position > %s AND position <= %s AND state_key IS NULL
         ORDER BY position
         LIMIT %s
        """,
        (room, after, upto, limit),
    )
    return await cursor.fetchall()

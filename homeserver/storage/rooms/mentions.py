"""Mentions: the users whom each event mentions.

Owns the table `mentions` (migrations/0008_push.sql), which has one row for each event and local
user whom it mentions, and one with `WHOLE_ROOM` for an event that mentions the whole room.
"""

from typing import Final

from homeserver.storage.database.batch import BatchStatement
from homeserver.storage.database.database import Connection

WHOLE_ROOM: Final = ""

INSERT_MENTION = BatchStatement(
    "insert_mention",
    """
    INSERT INTO mentions (room, user_id, position, event)
    SELECT * FROM unnest(%s::int4[], %s::text[], %s::int8[], %s::int8[])
        ON CONFLICT (room, user_id, position) DO UPDATE
       SET event = refuse_taken_key('mentions', mentions.position::text)
     WHERE mentions.event <> EXCLUDED.event
    """,
    columns=("int4", "text", "int8", "int8"),
)


async def mentions_between(
    db: Connection, room: int, user_id: str, after: int, upto: int, limit: int
) -> list[int]:
    """The newest events with after < position <= upto that mention a user, newest first."""
    cursor = await db.execute(
        """
        SELECT event
          FROM mentions
         WHERE room = %s AND user_id IN (%s, '') AND position > %s AND position <= %s
         ORDER BY position DESC
         LIMIT %s
        """,
        (room, user_id, after, upto, limit),
    )
    # One event may mention both the user and the whole room.
    return list(dict.fromkeys(row[0] for row in await cursor.fetchall()))

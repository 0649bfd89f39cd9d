"""Account data: JSON that clients store for their user, globally or for one room.

Owns the table `account_data` (migrations/0002_accounts.sql), which has one row for each user, room
and type; the room of global account data is the empty string.
"""

import msgspec
from psycopg.rows import class_row

from homeserver.storage.database.batch import BatchStatement
from homeserver.storage.database.database import Connection

# Sorted, so that two processes never deadlock.
SET_ACCOUNT_DATA = BatchStatement(
    "set_account_data",
    """
    INSERT INTO account_data (user_id, room_id, type, content, position)
    SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::bytea[], %s::int8[])
     ORDER BY 1, 2, 3
        ON CONFLICT (user_id, room_id, type) DO UPDATE
       SET content = EXCLUDED.content, position = EXCLUDED.position
     WHERE account_data.position < EXCLUDED.position
    """,
    columns=("text", "text", "text", "bytea", "int8"),
    key=(0, 1, 2),
)

# Late, so that data that was set before it in the same batch is deleted, too.
DELETE_ACCOUNT_DATA = BatchStatement(
    "delete_account_data",
    "DELETE FROM account_data WHERE user_id = ANY (SELECT * FROM unnest(%s::text[]))",
    columns=("text",),
    late=True,
)


class AccountDatum(msgspec.Struct, frozen=True):
    """One piece of account data; `content` is JSON, `room_id` is empty for the whole account."""

    room_id: str
    type: str
    content: bytes
    position: int


async def account_data_of(db: Connection, user_id: str) -> list[AccountDatum]:
    """All account data of a user, including that of rooms, least recently changed first."""
    async with db.cursor(row_factory=class_row(AccountDatum)) as cursor:
        await cursor.execute(
            """
            SELECT room_id, type, content, position
              FROM account_data
             WHERE user_id = %s
             ORDER BY position
            """,
            (user_id,),
        )
        return await cursor.fetchall()

"""Accounts that are new in the user directory, or have another status now.

Owns the table `user_directory_accounts` (migrations/0035_user_directory.sql), a queue. A trigger
fills it: accounts are created by several parts of the server and by the command line, and by none
of them through the log.
"""

from collections.abc import Sequence

import msgspec
from psycopg.rows import class_row

from homeserver.storage.database.database import Connection


class Account(msgspec.Struct, frozen=True):
    """One entry of the queue. `is_listed`: everybody may find the user, if that is configured."""

    number: int
    user_id: str
    is_listed: bool


async def waiting_accounts(db: Connection, limit: int) -> list[Account]:
    """The accounts that wait longest, as they are now."""
    async with db.cursor(row_factory=class_row(Account)) as cursor:
        await cursor.execute(
            """
            SELECT number, user_id,
                   NOT (is_guest OR is_deactivated OR appservice IS NOT NULL) AS is_listed
              FROM user_directory_accounts
              JOIN users USING (user_id)
             ORDER BY number
             LIMIT %s
            """,
            (limit,),
        )
        return await cursor.fetchall()


async def delete_accounts(db: Connection, numbers: Sequence[int]) -> None:
    """Remove entries from the queue."""
    await db.execute("DELETE FROM user_directory_accounts WHERE number = ANY(%s)", (list(numbers),))

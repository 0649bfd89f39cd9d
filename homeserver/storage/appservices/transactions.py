"""The transaction that each application service has to acknowledge, and moves to other positions.

Owns the tables `appservice_transactions` and `appservice_moves`
(migrations/0029_appservices.sql).
"""

from typing import NamedTuple

from homeserver.storage.database.batch import BatchStatement
from homeserver.storage.database.database import Connection

STORE_TRANSACTION = BatchStatement(
    "store_appservice_transaction",
    """
    INSERT INTO appservice_transactions (appservice, number, upto, body)
    SELECT * FROM unnest(%s::text[], %s::int8[], %s::int8[], %s::bytea[])
        ON CONFLICT (appservice) DO UPDATE
       SET number = EXCLUDED.number, upto = EXCLUDED.upto, body = EXCLUDED.body
     WHERE appservice_transactions.number <= EXCLUDED.number
    """,
    columns=("text", "int8", "int8", "bytea"),
    key=(0,),
)
"""An application service has a new transaction, or has acknowledged the last (`body` is `None`)."""


class TransactionRow(NamedTuple):
    """The last transaction; see the migration."""

    number: int
    upto: int
    body: bytes | None


async def last_transaction(db: Connection, appservice: str) -> TransactionRow | None:
    """The last transaction of an application service; `None` if it never had one."""
    cursor = await db.execute(
        "SELECT number, upto, body FROM appservice_transactions WHERE appservice = %s",
        (appservice,),
    )
    row = await cursor.fetchone()
    return None if row is None else TransactionRow(*row)


async def request_move(db: Connection, appservice: str, position: int | None) -> None:
    """Have an application service receive what follows a position; `None` is the present one."""
    await db.execute(
        """
        INSERT INTO appservice_moves (appservice, position) VALUES (%s, %s)
            ON CONFLICT (appservice) DO UPDATE SET position = EXCLUDED.position
        """,
        (appservice, position),
    )


async def requested_moves(db: Connection) -> dict[str, int | None]:
    """The moves that are requested, by application service."""
    cursor = await db.execute("SELECT appservice, position FROM appservice_moves")
    return dict(await cursor.fetchall())


async def finish_move(db: Connection, appservice: str) -> None:
    """Forget the transaction that was not acknowledged, and the request for the move."""
    for table in ("appservice_transactions", "appservice_moves"):
        await db.execute(f"DELETE FROM {table} WHERE appservice = %s", (appservice,))

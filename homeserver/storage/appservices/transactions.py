"""The transaction that each application service has to acknowledge.

Owns the table `appservice_transactions` (migrations/0029_appservices.sql).
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

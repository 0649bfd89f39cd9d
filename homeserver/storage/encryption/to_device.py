"""Messages to local devices, and the requests and EDUs that sent them.

Owns the tables `to_device_messages`, `to_device_transactions` and `to_device_received`
(migrations/0027_encryption.sql).
"""

from collections.abc import Sequence
from typing import NamedTuple

from homeserver.storage.database.batch import BatchStatement
from homeserver.storage.database.database import Connection

INSERT_MESSAGE = BatchStatement(
    "insert_to_device_message",
    """
    INSERT INTO to_device_messages (user_id, device_id, position, message)
    SELECT sent.*
      FROM unnest(%s::text[], %s::text[], %s::int8[], %s::bytea[])
           AS sent (user_id, device_id, position, message)
      JOIN devices USING (user_id, device_id)
        ON CONFLICT DO NOTHING
    """,
    columns=("text", "text", "int8", "bytea"),
)

# Late: messages that are sent in the commit that deletes the device are deleted with it.
DELETE_MESSAGES_OF_DEVICE = BatchStatement(
    "delete_to_device_messages",
    """
    DELETE FROM to_device_messages
     USING unnest(%s::text[], %s::text[]) AS gone (user_id, device_id)
     WHERE to_device_messages.user_id = gone.user_id
       AND to_device_messages.device_id = gone.device_id
    """,
    columns=("text", "text"),
    key=(0, 1),
    late=True,
)

DELETE_TRANSACTIONS_OF_DEVICE = BatchStatement(
    "delete_to_device_transactions",
    """
    DELETE FROM to_device_transactions
     USING unnest(%s::text[], %s::text[]) AS gone (user_id, device_id)
     WHERE to_device_transactions.user_id = gone.user_id
       AND to_device_transactions.device_id = gone.device_id
    """,
    columns=("text", "text"),
    key=(0, 1),
    late=True,
)

INSERT_TRANSACTION = BatchStatement(
    "insert_to_device_transaction",
    """
    INSERT INTO to_device_transactions (user_id, device_id, transaction, position)
    SELECT * FROM unnest(%s::text[], %s::text[], %s::bytea[], %s::int8[])
        ON CONFLICT DO NOTHING
    """,
    columns=("text", "text", "bytea", "int8"),
    key=(0, 1, 2),
)

INSERT_RECEIVED = BatchStatement(
    "insert_to_device_received",
    """
    INSERT INTO to_device_received (origin, message_id, position)
    SELECT * FROM unnest(%s::text[], %s::text[], %s::int8[])
        ON CONFLICT DO NOTHING
    """,
    columns=("text", "text", "int8"),
    key=(0, 1),
)


class MessageRow(NamedTuple):
    """A waiting message, an event as JSON."""

    position: int
    message: bytes


async def messages_after(
    db: Connection, user_id: str, device_id: str, after: int, upto: int, limit: int
) -> list[MessageRow]:
    """The messages of a device with `after < position <= upto`, oldest first."""
    cursor = await db.execute(
        """
        SELECT position, message
          FROM to_device_messages
         WHERE user_id = %s AND device_id = %s AND position > %s AND position <= %s
         ORDER BY position
         LIMIT %s
        """,
        (user_id, device_id, after, upto, limit),
    )
    return [MessageRow(*row) for row in await cursor.fetchall()]


async def delete_received(db: Connection, received: Sequence[tuple[str, str, int]]) -> None:
    """Delete the messages of devices up to a position: (user id, device id, position)."""
    await db.execute(
        """
        DELETE FROM to_device_messages
         USING unnest(%s::text[], %s::text[], %s::int8[]) AS received (user_id, device_id, upto)
         WHERE to_device_messages.user_id = received.user_id
           AND to_device_messages.device_id = received.device_id
           AND to_device_messages.position <= received.upto
        """,
        [list(column) for column in zip(*received, strict=True)],
    )


async def transactions_of(db: Connection, user_id: str, device_id: str, limit: int) -> list[bytes]:
    """The latest transactions of a device, oldest first."""
    cursor = await db.execute(
        """
        SELECT transaction
          FROM (SELECT transaction, position
                  FROM to_device_transactions
                 WHERE user_id = %s AND device_id = %s
                 ORDER BY position DESC
                 LIMIT %s) AS latest
         ORDER BY position
        """,
        (user_id, device_id, limit),
    )
    return [bytes(row[0]) for row in await cursor.fetchall()]


async def received_among(db: Connection, origin: str, message_ids: Sequence[str]) -> set[str]:
    """Those of some message ids that were received from a server before."""
    cursor = await db.execute(
        "SELECT message_id FROM to_device_received WHERE origin = %s AND message_id = ANY(%s)",
        (origin, list(message_ids)),
    )
    return {row[0] for row in await cursor.fetchall()}


async def delete_old_received(db: Connection, below: int) -> None:
    """Delete the message ids of other servers below a position."""
    await db.execute("DELETE FROM to_device_received WHERE position < %s", (below,))


async def delete_old_transactions(db: Connection, below: int) -> None:
    """Delete the transactions below a position."""
    await db.execute("DELETE FROM to_device_transactions WHERE position < %s", (below,))


async def delete_old_messages(db: Connection, below: int, limit: int) -> int:
    """Delete messages below a position, at most `limit`; the number of deleted ones."""
    cursor = await db.execute(
        """
        DELETE FROM to_device_messages
         WHERE ctid = ANY(ARRAY(
                   SELECT ctid FROM to_device_messages WHERE position < %s LIMIT %s))
        """,
        (below, limit),
    )
    return cursor.rowcount


async def delete_excess_messages(db: Connection, most: int) -> int:
    """Delete the oldest messages of each device with more than `most`; the number of messages."""
    cursor = await db.execute(
        """
        WITH crowded AS (
                 SELECT user_id, device_id
                   FROM to_device_messages
                  GROUP BY user_id, device_id
                 HAVING count(*) > %(most)s),
             first_kept AS (
                 SELECT user_id, device_id, (
                            SELECT position
                              FROM to_device_messages
                             WHERE to_device_messages.user_id = crowded.user_id
                               AND to_device_messages.device_id = crowded.device_id
                             ORDER BY position DESC
                            OFFSET %(most)s - 1 LIMIT 1) AS position
                   FROM crowded)
        DELETE FROM to_device_messages USING first_kept
         WHERE to_device_messages.user_id = first_kept.user_id
           AND to_device_messages.device_id = first_kept.device_id
           AND to_device_messages.position < first_kept.position
        """,
        {"most": most},
    )
    return cursor.rowcount

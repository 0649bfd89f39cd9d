"""Messages to devices of users of other servers, until their server has them.

Owns the table `outgoing_to_device` (migrations/0027_encryption.sql), which has the content of each
EDU as canonical JSON.
"""

from collections.abc import Sequence
from typing import NamedTuple

from homeserver.storage.database.batch import BatchStatement
from homeserver.storage.database.database import Connection

INSERT_OUTGOING = BatchStatement(
    "insert_outgoing_to_device",
    """
    INSERT INTO outgoing_to_device (destination, position, edu)
    SELECT * FROM unnest(%s::text[], %s::int8[], %s::bytea[])
        ON CONFLICT DO NOTHING
    """,
    columns=("text", "int8", "bytea"),
)

DELETE_OUTGOING = BatchStatement(
    "delete_outgoing_to_device",
    """
    DELETE FROM outgoing_to_device
     USING unnest(%s::text[], %s::int8[]) AS sent (destination, position)
     WHERE outgoing_to_device.destination = sent.destination
       AND outgoing_to_device.position = sent.position
    """,
    columns=("text", "int8"),
    key=(0, 1),
)

_DESTINATIONS = """
    WITH RECURSIVE waiting (destination) AS (
        (SELECT destination FROM outgoing_to_device ORDER BY destination LIMIT 1)
         UNION ALL
        SELECT (SELECT later.destination
                  FROM outgoing_to_device AS later
                 WHERE later.destination > waiting.destination
                 ORDER BY later.destination
                 LIMIT 1)
          FROM waiting
         WHERE waiting.destination IS NOT NULL)
"""


class OutgoingRow(NamedTuple):
    """The content of an EDU that waits."""

    position: int
    edu: bytes


class OutgoingPage(NamedTuple):
    """The oldest messages for a destination, and whether others follow."""

    rows: Sequence[OutgoingRow]
    has_more: bool


async def outgoing_destinations(db: Connection) -> list[str]:
    """The servers for which messages wait, one step of the index for each."""
    cursor = await db.execute(
        f"{_DESTINATIONS} SELECT destination FROM waiting WHERE destination IS NOT NULL"
    )
    return [row[0] for row in await cursor.fetchall()]


async def oldest_outgoing(
    db: Connection, destination: str, limit: int, max_bytes: int
) -> OutgoingPage:
    """The oldest messages for a destination: up to `limit`, and `max_bytes` beyond the first."""
    cursor = await db.execute(
        """
        SELECT position, edu, number
          FROM (SELECT position, edu, count(*) OVER () AS number,
                       sum(length(edu)) OVER (ORDER BY position) AS size,
                       row_number() OVER (ORDER BY position) AS place
                  FROM (SELECT position, edu
                          FROM outgoing_to_device
                         WHERE destination = %s
                         ORDER BY position
                         LIMIT %s) AS oldest) AS measured
         WHERE size <= %s OR place = 1
         ORDER BY position
        """,
        (destination, limit + 1, max_bytes),
    )
    found = await cursor.fetchall()
    rows = [OutgoingRow(position, bytes(edu)) for position, edu, _ in found[:limit]]
    return OutgoingPage(rows, bool(found) and len(rows) < found[0][2])


async def delete_outgoing(db: Connection, below: int, most: int) -> dict[str, int]:
    """Delete messages below a position, and the oldest of each destination with more than `most`.

    Returns the number of deleted messages by destination.
    """
    cursor = await db.execute(
        f"""
        {_DESTINATIONS},
             bounds AS (
                 SELECT destination,
                        greatest(%s - 1, (SELECT position
                                            FROM outgoing_to_device AS queued
                                           WHERE queued.destination = waiting.destination
                                           ORDER BY position DESC
                                          OFFSET %s LIMIT 1)) AS upto
                   FROM waiting
                  WHERE destination IS NOT NULL),
             deleted AS (
                 DELETE FROM outgoing_to_device USING bounds
                  WHERE outgoing_to_device.destination = bounds.destination
                    AND outgoing_to_device.position <= bounds.upto
                 RETURNING outgoing_to_device.destination)
        SELECT destination, count(*) FROM deleted GROUP BY destination
        """,
        (below, most),
    )
    return dict(await cursor.fetchall())

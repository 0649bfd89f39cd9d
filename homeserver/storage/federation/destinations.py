"""Destinations: the reachability of the servers that this one sends to.

Owns the table `destinations` (migrations/0011_federation_keys.sql). Times are seconds since the
epoch.
"""

from collections.abc import Sequence

import msgspec
from psycopg.rows import class_row

from homeserver.storage.database.database import Connection


class Destination(msgspec.Struct, frozen=True):
    """One server: failures since the last success, end of its back-off, last response."""

    server_name: str
    failures: int
    failed_at: float
    retry_at: float
    succeeded_at: float | None


async def failing(db: Connection, limit: int) -> dict[str, Destination]:
    """The servers that failed recently, by name, at most `limit` of them."""
    async with db.cursor(row_factory=class_row(Destination)) as cursor:
        await cursor.execute(
            """
            SELECT server_name, failures, failed_at, retry_at, succeeded_at
              FROM destinations
             WHERE failures > 0
             ORDER BY retry_at DESC
             LIMIT %s
            """,
            (limit,),
        )
        return {row.server_name: row for row in await cursor.fetchall()}


async def save(db: Connection, rows: Sequence[Destination]) -> None:
    """Write the state of some servers, each named once."""
    await db.execute(
        """
        INSERT INTO destinations (server_name, failures, failed_at, retry_at, succeeded_at)
        SELECT * FROM unnest(%s::text[], %s::int[], %s::float8[], %s::float8[], %s::float8[])
            ON CONFLICT (server_name) DO UPDATE
           SET failures = excluded.failures,
               failed_at = excluded.failed_at,
               retry_at = excluded.retry_at,
               succeeded_at = coalesce(excluded.succeeded_at, destinations.succeeded_at)
        """,
        (
            [row.server_name for row in rows],
            [row.failures for row in rows],
            [row.failed_at for row in rows],
            [row.retry_at for row in rows],
            [row.succeeded_at for row in rows],
        ),
    )

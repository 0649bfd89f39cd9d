"""Connections of sliding sync, which outlive a restart.

Owns the table `sliding_sync_connections` (migrations/0040_sliding_sync.sql). No batch of the log
writes to it, and one task does at a time.
"""

from collections.abc import Sequence
from typing import NamedTuple

from homeserver.storage.database.database import Connection


class ConnectionRow(NamedTuple):
    """One connection; `saved_ms` is in ms since the epoch."""

    user_id: str
    device_id: str
    conn_id: str
    sent: bytes
    saved_ms: int


async def save_connections(db: Connection, rows: Sequence[ConnectionRow]) -> None:
    """Store connections, in place of earlier states, of those of the devices that exist."""
    await db.execute(
        """
        INSERT INTO sliding_sync_connections (user_id, device_id, conn_id, sent, saved_ms)
        SELECT saved.*
          FROM unnest(%s::text[], %s::text[], %s::text[], %s::bytea[], %s::int8[])
               AS saved (user_id, device_id, conn_id, sent, saved_ms)
          JOIN devices USING (user_id, device_id)
            ON CONFLICT (user_id, device_id, conn_id) DO UPDATE
           SET sent = EXCLUDED.sent, saved_ms = EXCLUDED.saved_ms
        """,
        (
            [row.user_id for row in rows],
            [row.device_id for row in rows],
            [row.conn_id for row in rows],
            [row.sent for row in rows],
            [row.saved_ms for row in rows],
        ),
    )


async def find_connection(
    db: Connection, user_id: str, device_id: str, conn_id: str
) -> bytes | None:
    """What was sent over a connection, if it is stored."""
    cursor = await db.execute(
        """
        SELECT sent
          FROM sliding_sync_connections
         WHERE user_id = %s AND device_id = %s AND conn_id = %s
        """,
        (user_id, device_id, conn_id),
        binary=True,
    )
    row = await cursor.fetchone()
    return None if row is None else bytes(row[0])


async def delete_connections(db: Connection, devices: Sequence[tuple[str, str]], kept: int) -> None:
    """Delete all but the `kept` connections of these devices that were saved last."""
    await db.execute(
        """
        DELETE FROM sliding_sync_connections
         USING (SELECT user_id, device_id, conn_id,
                       row_number() OVER (PARTITION BY user_id, device_id
                                          ORDER BY saved_ms DESC) AS place
                  FROM sliding_sync_connections
                  JOIN unnest(%s::text[], %s::text[]) AS own (user_id, device_id)
                       USING (user_id, device_id)) AS ranked
         WHERE sliding_sync_connections.user_id = ranked.user_id
           AND sliding_sync_connections.device_id = ranked.device_id
           AND sliding_sync_connections.conn_id = ranked.conn_id
           AND place > %s
        """,
        ([each[0] for each in devices], [each[1] for each in devices], kept),
    )


async def delete_orphaned_connections(db: Connection) -> None:
    """Delete the connections of devices that do not exist any more."""
    await db.execute(
        """
        DELETE FROM sliding_sync_connections
         WHERE NOT EXISTS (SELECT FROM devices
                            WHERE devices.user_id = sliding_sync_connections.user_id
                              AND devices.device_id = sliding_sync_connections.device_id)
        """
    )

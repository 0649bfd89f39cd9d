"""Devices: the places where a user is logged in.

Owns the table `devices` (migrations/0002_accounts.sql). Tokens refer to a device and are deleted
with it.
"""

from collections.abc import Sequence

import msgspec
from psycopg.rows import class_row

from homeserver.storage.database.batch import BatchStatement
from homeserver.storage.database.database import Connection

# Late: a device that is renamed in the commit that deletes it is deleted, with its tokens.
DELETE_DEVICE = BatchStatement(
    "delete_device",
    """
    DELETE FROM devices
     USING unnest(%s::text[], %s::text[]) AS gone (user_id, device_id)
     WHERE devices.user_id = gone.user_id AND devices.device_id = gone.device_id
    """,
    columns=("text", "text"),
    key=(0, 1),
    late=True,
)

RENAME_DEVICE = BatchStatement(
    "rename_device",
    """
    UPDATE devices SET display_name = renamed.display_name
      FROM unnest(%s::text[], %s::text[], %s::text[])
           AS renamed (user_id, device_id, display_name)
     WHERE devices.user_id = renamed.user_id AND devices.device_id = renamed.device_id
    """,
    columns=("text", "text", "text"),
    key=(0, 1),
)


class Device(msgspec.Struct, frozen=True):
    """A device; the `last_seen` fields may be a few minutes old."""

    device_id: str
    display_name: str | None
    last_seen_ms: int | None
    last_seen_ip: str | None
    last_seen_agent: str | None = None


class Sighting(msgspec.Struct, frozen=True):
    """The time, address and user agent of a device's latest request."""

    user_id: str
    device_id: str
    at_ms: int
    address: str
    agent: str = ""


async def insert_device(
    db: Connection, user_id: str, device_id: str, display_name: str | None, now_ms: int
) -> bool:
    """Add a device; false, and no change, if the user has it already."""
    cursor = await db.execute(
        """
        INSERT INTO devices (user_id, device_id, display_name, created_ms)
        VALUES (%s, %s, %s, %s)
            ON CONFLICT DO NOTHING
        """,
        (user_id, device_id, display_name, now_ms),
    )
    return cursor.rowcount == 1


async def lock_device(db: Connection, user_id: str, device_id: str) -> bool:
    """Lock a device until the end of the transaction; false if it does not exist.

    What changes tokens of a device that exist locks it first, one at a time. The deletion of a
    device locks it, too, before its tokens: in another order two could wait for each other.
    """
    cursor = await db.execute(
        "SELECT FROM devices WHERE user_id = %s AND device_id = %s FOR NO KEY UPDATE",
        (user_id, device_id),
    )
    return await cursor.fetchone() is not None


async def count_devices(db: Connection, user_id: str, most: int) -> int:
    """The number of a user's devices, counted up to `most`."""
    cursor = await db.execute(
        """
        SELECT count(*) FROM (SELECT FROM devices WHERE user_id = %s LIMIT %s) AS counted
        """,
        (user_id, most),
    )
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


async def find_device(db: Connection, user_id: str, device_id: str) -> Device | None:
    """One device of a user."""
    async with db.cursor(row_factory=class_row(Device)) as cursor:
        await cursor.execute(
            """
            SELECT device_id, display_name, last_seen_ms, last_seen_ip, last_seen_agent
              FROM devices
             WHERE user_id = %s AND device_id = %s
            """,
            (user_id, device_id),
        )
        return await cursor.fetchone()


async def devices_of(db: Connection, user_id: str) -> list[Device]:
    """All devices of a user, oldest first."""
    async with db.cursor(row_factory=class_row(Device)) as cursor:
        await cursor.execute(
            """
            SELECT device_id, display_name, last_seen_ms, last_seen_ip, last_seen_agent
              FROM devices
             WHERE user_id = %s
             ORDER BY created_ms, device_id
            """,
            (user_id,),
        )
        return await cursor.fetchall()


async def update_last_seen(db: Connection, sightings: Sequence[Sighting]) -> None:
    """Store when and where devices were last seen; an older sighting changes nothing."""
    columns = [
        [sighting.user_id for sighting in sightings],
        [sighting.device_id for sighting in sightings],
        [sighting.at_ms for sighting in sightings],
        [sighting.address for sighting in sightings],
        [sighting.agent for sighting in sightings],
    ]
    await db.execute(
        """
        UPDATE devices
           SET last_seen_ms = seen.at_ms, last_seen_ip = seen.address,
               last_seen_agent = seen.agent
          FROM unnest(%s::text[], %s::text[], %s::int8[], %s::text[], %s::text[])
               AS seen (user_id, device_id, at_ms, address, agent)
         WHERE devices.user_id = seen.user_id AND devices.device_id = seen.device_id
           AND (last_seen_ms IS NULL OR last_seen_ms < seen.at_ms)
        """,
        columns,
    )

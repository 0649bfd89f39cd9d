"""Dehydrated devices: the encrypted device of each user who has one.

Owns the table `dehydrated_devices` (migrations/0027_encryption.sql).
"""

from typing import NamedTuple

from homeserver.storage.database.batch import BatchStatement
from homeserver.storage.database.database import Connection

DELETE_DEHYDRATED_DEVICE = BatchStatement(
    "delete_dehydrated_device",
    """
    DELETE FROM dehydrated_devices
     USING unnest(%s::text[], %s::text[]) AS gone (user_id, device_id)
     WHERE dehydrated_devices.user_id = gone.user_id
       AND dehydrated_devices.device_id = gone.device_id
    """,
    columns=("text", "text"),
    key=(0, 1),
    late=True,
)


class DehydratedDevice(NamedTuple):
    """A user's dehydrated device; `device_data` is JSON."""

    device_id: str
    device_data: bytes


async def find_dehydrated_device(db: Connection, user_id: str) -> DehydratedDevice | None:
    """The dehydrated device of a user, if there is one."""
    cursor = await db.execute(
        "SELECT device_id, device_data FROM dehydrated_devices WHERE user_id = %s", (user_id,)
    )
    row = await cursor.fetchone()
    return None if row is None else DehydratedDevice(row[0], bytes(row[1]))


async def set_dehydrated_device(
    db: Connection, user_id: str, device_id: str, device_data: bytes
) -> None:
    """Store the dehydrated device of a user, in place of the one that they had."""
    await db.execute(
        """
        INSERT INTO dehydrated_devices (user_id, device_id, device_data)
        VALUES (%s, %s, %s)
            ON CONFLICT (user_id) DO UPDATE
           SET device_id = EXCLUDED.device_id, device_data = EXCLUDED.device_data
        """,
        (user_id, device_id, device_data),
    )

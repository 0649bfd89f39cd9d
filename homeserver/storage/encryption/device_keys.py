"""The identity keys of the devices of local users.

Owns the table `device_keys` (migrations/0027_encryption.sql), which has one row for each device
that encrypts.
"""

from collections.abc import Sequence
from typing import NamedTuple

from homeserver.storage.database.batch import BatchStatement
from homeserver.storage.database.database import Connection

SET_DEVICE_KEYS = BatchStatement(
    "set_device_keys",
    """
    INSERT INTO device_keys (user_id, device_id, keys)
    SELECT uploaded.user_id, uploaded.device_id, uploaded.keys
      FROM unnest(%s::text[], %s::text[], %s::bytea[]) AS uploaded (user_id, device_id, keys)
      JOIN devices USING (user_id, device_id)
     ORDER BY 1, 2
        ON CONFLICT (user_id, device_id) DO UPDATE SET keys = EXCLUDED.keys
    """,
    columns=("text", "text", "bytea"),
    key=(0, 1),
)

# Late: keys that are uploaded in the commit that deletes the device are deleted with it.
DELETE_DEVICE_KEYS = BatchStatement(
    "delete_device_keys",
    """
    DELETE FROM device_keys
     USING unnest(%s::text[], %s::text[]) AS gone (user_id, device_id)
     WHERE device_keys.user_id = gone.user_id AND device_keys.device_id = gone.device_id
    """,
    columns=("text", "text"),
    key=(0, 1),
    late=True,
)


class DeviceRow(NamedTuple):
    """A device of a local or remote user; `keys` is JSON, `None` if it does not encrypt."""

    user_id: str
    device_id: str
    display_name: str | None
    keys: bytes | None


async def local_devices_of(db: Connection, user_ids: Sequence[str]) -> list[DeviceRow]:
    """All devices of some local users, oldest first."""
    cursor = await db.execute(
        """
        SELECT user_id, device_id, display_name, keys
          FROM devices LEFT JOIN device_keys USING (user_id, device_id)
         WHERE user_id = ANY(%s)
         ORDER BY user_id, created_ms, device_id
        """,
        (list(user_ids),),
    )
    return [DeviceRow(*row) for row in await cursor.fetchall()]


async def find_device_keys(db: Connection, user_id: str, device_id: str) -> bytes | None:
    """The identity keys of a device, if it has any."""
    cursor = await db.execute(
        "SELECT keys FROM device_keys WHERE user_id = %s AND device_id = %s", (user_id, device_id)
    )
    row = await cursor.fetchone()
    return None if row is None else bytes(row[0])

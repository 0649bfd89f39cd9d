"""The device lists of remote users, as their servers gave them.

Owns the tables `remote_device_lists` and `remote_devices` (migrations/0027_encryption.sql).
"""

from collections.abc import Sequence

from homeserver.storage.database.database import Connection
from homeserver.storage.encryption.device_keys import DeviceRow


async def remote_devices_of(db: Connection, user_ids: Sequence[str]) -> list[DeviceRow]:
    """All known devices of some remote users."""
    cursor = await db.execute(
        """
        SELECT user_id, device_id, display_name, keys
          FROM remote_devices
         WHERE user_id = ANY(%s)
         ORDER BY user_id, device_id
        """,
        (list(user_ids),),
    )
    return [DeviceRow(*row) for row in await cursor.fetchall()]

"""The device lists of remote users, as their servers gave them.

Owns the tables `remote_device_lists` and `remote_devices` (migrations/0027_encryption.sql).
"""

from collections.abc import Sequence
from typing import NamedTuple

from homeserver.storage.database.batch import BatchStatement
from homeserver.storage.database.database import Connection
from homeserver.storage.encryption.device_keys import DeviceRow

SET_REMOTE_LIST = BatchStatement(
    "set_remote_device_list",
    """
    INSERT INTO remote_device_lists (user_id, stream_id, is_stale)
    SELECT * FROM unnest(%s::text[], %s::int8[], %s::bool[])
     ORDER BY 1
        ON CONFLICT (user_id) DO UPDATE
       SET stream_id = EXCLUDED.stream_id, is_stale = EXCLUDED.is_stale
    """,
    columns=("text", "int8", "bool"),
    key=(0,),
)

SET_REMOTE_DEVICE = BatchStatement(
    "set_remote_device",
    """
    INSERT INTO remote_devices (user_id, device_id, display_name, keys)
    SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::bytea[])
     ORDER BY 1, 2
        ON CONFLICT (user_id, device_id) DO UPDATE
       SET display_name = EXCLUDED.display_name, keys = EXCLUDED.keys
    """,
    columns=("text", "text", "text", "bytea"),
    key=(0, 1),
)

DELETE_REMOTE_DEVICE = BatchStatement(
    "delete_remote_device",
    """
    DELETE FROM remote_devices
     USING unnest(%s::text[], %s::text[]) AS gone (user_id, device_id)
     WHERE remote_devices.user_id = gone.user_id AND remote_devices.device_id = gone.device_id
    """,
    columns=("text", "text"),
    key=(0, 1),
)

DELETE_REMOTE_LIST = BatchStatement(
    "delete_remote_device_list",
    """
    DELETE FROM remote_device_lists USING unnest(%s::text[]) AS gone (user_id)
     WHERE remote_device_lists.user_id = gone.user_id
    """,
    columns=("text",),
    key=(0,),
)


class RemoteListRow(NamedTuple):
    """The device list of a remote user. A stale one is fetched again before it is used."""

    user_id: str
    stream_id: int
    is_stale: bool


async def remote_lists_of(db: Connection, user_ids: Sequence[str]) -> list[RemoteListRow]:
    """The stored lists of some remote users; users without one are left out."""
    cursor = await db.execute(
        "SELECT user_id, stream_id, is_stale FROM remote_device_lists WHERE user_id = ANY(%s)",
        (list(user_ids),),
    )
    return [RemoteListRow(*row) for row in await cursor.fetchall()]


async def stale_lists(db: Connection, limit: int) -> list[str]:
    """Users whose lists are stale."""
    cursor = await db.execute(
        "SELECT user_id FROM remote_device_lists WHERE is_stale ORDER BY user_id LIMIT %s",
        (limit,),
    )
    return [row[0] for row in await cursor.fetchall()]


async def users_with_lists(db: Connection, room: int) -> list[str]:
    """The users with a stored list who are or were in a room, or are invited to it."""
    cursor = await db.execute(
        """
        SELECT user_id
          FROM memberships
          JOIN names ON nid = member
          JOIN remote_device_lists ON user_id = name
         WHERE room = %s
        """,
        (room,),
    )
    return [row[0] for row in await cursor.fetchall()]


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

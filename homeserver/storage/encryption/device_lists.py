"""The last change of the device list of each user.

Owns the table `device_lists` (migrations/0027_encryption.sql).
"""

from collections.abc import Sequence
from typing import NamedTuple

from homeserver.storage.database.batch import BatchStatement
from homeserver.storage.database.database import Connection

RECORD_DEVICE_LIST_CHANGE = BatchStatement(
    "record_device_list_change",
    """
    INSERT INTO device_lists (user_id, position, stream_id, previous_id, device_id)
    SELECT * FROM unnest(%s::text[], %s::int8[], %s::int8[], %s::int8[], %s::text[])
     ORDER BY 1
        ON CONFLICT (user_id) DO UPDATE
       SET position = EXCLUDED.position, stream_id = EXCLUDED.stream_id,
           previous_id = EXCLUDED.previous_id, device_id = EXCLUDED.device_id
     WHERE device_lists.position < EXCLUDED.position
    """,
    columns=("text", "int8", "int8", "int8", "text"),
    key=(0,),
)


class DeviceListRow(NamedTuple):
    """The last change of a user's device list.

    `stream_id` and `previous_id` are those of the EDU for it; `device_id` is `None` for a change of
    cross-signing keys.
    """

    user_id: str
    position: int
    stream_id: int
    previous_id: int | None
    device_id: str | None


async def device_list_of(db: Connection, user_id: str) -> DeviceListRow | None:
    """The last change of a user's device list; `None` if it has never changed."""
    cursor = await db.execute(
        """
        SELECT user_id, position, stream_id, previous_id, device_id
          FROM device_lists
         WHERE user_id = %s
        """,
        (user_id,),
    )
    row = await cursor.fetchone()
    return None if row is None else DeviceListRow(*row)


async def device_lists_of(db: Connection, user_ids: Sequence[str]) -> list[DeviceListRow]:
    """The last changes of some users' device lists; users without any are left out."""
    cursor = await db.execute(
        """
        SELECT user_id, position, stream_id, previous_id, device_id
          FROM device_lists
         WHERE user_id = ANY(%s)
        """,
        (list(user_ids),),
    )
    return [DeviceListRow(*row) for row in await cursor.fetchall()]


async def device_lists_between(
    db: Connection, after: int, upto: int, limit: int
) -> list[DeviceListRow]:
    """The last changes with `after < position <= upto`, as far as no later one followed."""
    cursor = await db.execute(
        """
        SELECT user_id, position, stream_id, previous_id, device_id
          FROM device_lists
         WHERE position > %s AND position <= %s
         ORDER BY position
         LIMIT %s
        """,
        (after, upto, limit),
    )
    return [DeviceListRow(*row) for row in await cursor.fetchall()]


async def shared_lists_changed(
    db: Connection, user_id: str, rooms: Sequence[int], after: int
) -> dict[str, int]:
    """The users with a change above a position who share one of the rooms, with its position.

    The user themselves is one of them.
    """
    cursor = await db.execute(
        """
        SELECT user_id, position
          FROM device_lists
         WHERE position > %(after)s
           AND (user_id = %(user)s
                OR EXISTS (
                       SELECT
                         FROM names JOIN memberships ON member = nid
                        WHERE name = user_id AND room = ANY(%(rooms)s) AND membership = 'join'))
        """,
        {"user": user_id, "rooms": list(rooms), "after": after},
    )
    return dict(await cursor.fetchall())

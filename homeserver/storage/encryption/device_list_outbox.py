"""Changes of local users' device lists that other servers do not have yet.

Owns the table `device_list_outbox` (migrations/0027_encryption.sql).
"""

from homeserver.storage.database.batch import BatchStatement
from homeserver.storage.database.database import Connection
from homeserver.storage.encryption.device_lists import DeviceListRow

# One row of values for all destinations of a change, which are separated by spaces: a user may
# share rooms with thousands of servers.
QUEUE_DEVICE_LIST = BatchStatement(
    "queue_device_list",
    """
    INSERT INTO device_list_outbox
           (destination, position, user_id, stream_id, previous_id, device_id)
    SELECT destination, position, user_id, stream_id, previous_id, device_id
      FROM unnest(%s::text[], %s::int8[], %s::text[], %s::int8[], %s::int8[], %s::text[])
           AS changed (destinations, position, user_id, stream_id, previous_id, device_id)
     CROSS JOIN unnest(string_to_array(destinations, ' ')) AS destination
        ON CONFLICT DO NOTHING
    """,
    columns=("text", "int8", "text", "int8", "int8", "text"),
)

REPLACE_EARLIER_CHANGES = BatchStatement(
    "replace_earlier_device_lists",
    """
    DELETE FROM device_list_outbox
     USING unnest(%s::text[], %s::text[], %s::int8[]) AS changed (destinations, user_id, position)
     CROSS JOIN unnest(string_to_array(destinations, ' ')) AS changed_at (destination)
     WHERE device_list_outbox.destination = changed_at.destination
       AND device_list_outbox.user_id = changed.user_id
       AND device_list_outbox.position < changed.position
    """,
    columns=("text", "text", "int8"),
)

DELETE_QUEUED = BatchStatement(
    "delete_queued_device_list",
    """
    DELETE FROM device_list_outbox
     USING unnest(%s::text[], %s::int8[]) AS sent (destination, position)
     WHERE device_list_outbox.destination = sent.destination
       AND device_list_outbox.position = sent.position
    """,
    columns=("text", "int8"),
    key=(0, 1),
)


async def device_list_destinations(db: Connection) -> list[str]:
    """The servers for which changes wait, one step of the index for each."""
    cursor = await db.execute(
        """
        WITH RECURSIVE waiting (destination) AS (
            (SELECT destination FROM device_list_outbox ORDER BY destination LIMIT 1)
             UNION ALL
            SELECT (SELECT later.destination
                      FROM device_list_outbox AS later
                     WHERE later.destination > waiting.destination
                     ORDER BY later.destination
                     LIMIT 1)
              FROM waiting
             WHERE waiting.destination IS NOT NULL)
        SELECT destination FROM waiting WHERE destination IS NOT NULL
        """
    )
    return [row[0] for row in await cursor.fetchall()]


async def oldest_device_lists(db: Connection, destination: str, limit: int) -> list[DeviceListRow]:
    """The oldest changes that a destination does not have yet."""
    cursor = await db.execute(
        """
        SELECT user_id, position, stream_id, previous_id, device_id
          FROM device_list_outbox
         WHERE destination = %s
         ORDER BY position
         LIMIT %s
        """,
        (destination, limit),
    )
    return [DeviceListRow(*row) for row in await cursor.fetchall()]

"""The rooms of a user that may have unread events.

Reads the tables that `storage/rooms/events.py`, `names.py` and `receipts.py` own.
"""

from collections.abc import Sequence

from homeserver.storage.database.database import Connection


async def rooms_with_unread(
    db: Connection, user_id: str, rooms: Sequence[int], limit: int
) -> list[int]:
    """Those of a user's rooms with events after all that the user has read, newest first."""
    cursor = await db.execute(
        """
        SELECT wanted.room
          FROM unnest(%(rooms)s::int4[]) AS wanted (room)
         CROSS JOIN LATERAL (SELECT position FROM events
                              WHERE events.room = wanted.room AND position > 0
                              ORDER BY position DESC
                              LIMIT 1) AS newest
         WHERE newest.position > COALESCE(
               (SELECT max(event_position)
                  FROM receipts
                  JOIN names ON names.nid = receipts.member
                 WHERE receipts.room = wanted.room AND names.name = %(user_id)s
                   AND thread_id = '' AND receipt_type IN ('m.read', 'm.read.private')), 0)
         ORDER BY newest.position DESC
         LIMIT %(limit)s
        """,
        {"rooms": list(rooms), "user_id": user_id, "limit": limit},
    )
    return [room for (room,) in await cursor.fetchall()]

"""The highest log position at which any row is stored.

Reads the tables of all modules whose rows have a position. An index answers each part: if it begins
with a room or a user, by one look-up for each of them.
"""

from homeserver.storage.database.database import Connection


async def highest_position(db: Connection) -> int:
    """The highest position or event number in any table; 0 in an empty database."""
    cursor = await db.execute(
        """
        SELECT GREATEST(
            0,
            (SELECT max(event) FROM events),
            (SELECT max(newest.position)
               FROM rooms
              CROSS JOIN LATERAL (SELECT max(position) AS position
                                    FROM events
                                   WHERE events.room = rooms.room) AS newest),
            (SELECT max(newest.position)
               FROM rooms
              CROSS JOIN LATERAL (SELECT max(position) AS position
                                    FROM current_states
                                   WHERE current_states.room = rooms.room) AS newest),
            (SELECT max(newest.position)
               FROM rooms
              CROSS JOIN LATERAL (SELECT max(position) AS position
                                    FROM receipts
                                   WHERE receipts.room = rooms.room) AS newest),
            (SELECT max(newest.position)
               FROM users
              CROSS JOIN LATERAL (SELECT max(position) AS position
                                    FROM account_data
                                   WHERE account_data.user_id = users.user_id) AS newest),
            (SELECT max(position) FROM memberships),
            (SELECT max(position) FROM presence),
            (SELECT max(position) FROM profiles),
            (SELECT max(whole_at) FROM partial_rooms),
            (SELECT max(position) FROM reader_positions)
        )
        """
    )
    row = await cursor.fetchone()
    assert row is not None, "an expression has a value"
    return int(row[0])

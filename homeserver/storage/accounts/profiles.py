"""Profiles: display names, avatars and other public fields of users.

Owns the table `profiles` (migrations/0002_accounts.sql), which has one row for each user and field.
A removed field keeps its row with a null value, so that its position distinguishes a repeated or
late write from a newer one.
"""

from collections.abc import Sequence

from homeserver.storage.database.batch import BatchStatement
from homeserver.storage.database.database import Connection

# A null value removes the field. Sorted, so that two processes never deadlock.
SET_PROFILE_FIELD = BatchStatement(
    "set_profile_field",
    """
    INSERT INTO profiles (user_id, field, value, position)
    SELECT * FROM unnest(%s::text[], %s::text[], %s::bytea[], %s::int8[]) ORDER BY 1, 2
        ON CONFLICT (user_id, field) DO UPDATE
       SET value = EXCLUDED.value, position = EXCLUDED.position
     WHERE profiles.position < EXCLUDED.position
    """,
    columns=("text", "text", "bytea", "int8"),
    key=(0, 1),
)


async def insert_profile_field(db: Connection, user_id: str, field: str, value: bytes) -> None:
    """Set a field of an account that is being created, unless it is set; bypasses the log.

    Its position is before all others, so that any value that the user sets replaces it.
    """
    await db.execute(
        """
        INSERT INTO profiles (user_id, field, value, position)
        VALUES (%s, %s, %s, 0)
            ON CONFLICT DO NOTHING
        """,
        (user_id, field, value),
    )


async def load_profile(db: Connection, user_id: str) -> dict[str, bytes]:
    """The fields of a user's profile, each with its value as JSON."""
    cursor = await db.execute(
        "SELECT field, value FROM profiles WHERE user_id = %s AND value IS NOT NULL", (user_id,)
    )
    return {str(field): bytes(value) for field, value in await cursor.fetchall()}


async def load_profiles(db: Connection, user_ids: Sequence[str]) -> dict[str, dict[str, bytes]]:
    """The profiles of some users; those without any field are left out."""
    cursor = await db.execute(
        """
        SELECT user_id, field, value
          FROM profiles
         WHERE user_id = ANY(%s) AND value IS NOT NULL
        """,
        (list(user_ids),),
    )
    profiles: dict[str, dict[str, bytes]] = {}
    for user_id, field, value in await cursor.fetchall():
        profiles.setdefault(user_id, {})[field] = bytes(value)
    return profiles


async def shared_profile_changes(
    db: Connection, user_id: str, rooms: Sequence[int], after: int
) -> list[tuple[str, str, int]]:
    """(user id, field, position) of the fields that changed above a position, also of removed ones.

    They are those of the user, and of users who are joined to one of the rooms.
    """
    cursor = await db.execute(
        """
        SELECT user_id, field, position
          FROM profiles
         WHERE user_id = %(user)s AND position > %(after)s
         UNION
        SELECT user_id, field, profiles.position
          FROM profiles
          JOIN names ON name = user_id
          JOIN memberships ON member = nid
         WHERE room = ANY(%(rooms)s) AND membership = 'join' AND profiles.position > %(after)s
        """,
        {"user": user_id, "rooms": list(rooms), "after": after},
    )
    return await cursor.fetchall()


async def profile_changes_between(
    db: Connection, after: int, upto: int, fields: Sequence[str], limit: int
) -> list[tuple[int, str]]:
    """(position, user id) of the next changes of these fields; more, if they share a position."""
    cursor = await db.execute(
        """
        SELECT position, user_id
          FROM profiles
         WHERE position > %s AND position <= %s AND field = ANY(%s)
         ORDER BY position
         FETCH FIRST (%s) ROWS WITH TIES
        """,
        (after, upto, list(fields), limit),
    )
    return await cursor.fetchall()

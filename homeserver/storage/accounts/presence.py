"""Presence: the last published presence of each local user.

Owns the table `presence` (migrations/0006_presence.sql), which has one row for each user who was
ever online. A row is written when a change of presence is published, not at every activity of the
user.
"""

import msgspec
from psycopg.rows import class_row

from homeserver.storage.database.batch import BatchStatement
from homeserver.storage.database.database import Connection

# Sorted, so that two processes never deadlock.
UPSERT_PRESENCE = BatchStatement(
    "upsert_presence",
    """
    INSERT INTO presence (member, state, status_msg, last_active_ms, position)
    SELECT * FROM unnest(%s::int4[], %s::text[], %s::text[], %s::int8[], %s::int8[]) ORDER BY 1
        ON CONFLICT (member) DO UPDATE
       SET state = EXCLUDED.state, status_msg = EXCLUDED.status_msg,
           last_active_ms = EXCLUDED.last_active_ms, position = EXCLUDED.position
     WHERE presence.position < EXCLUDED.position
    """,
    columns=("int4", "text", "text", "int8", "int8"),
    key=(0,),
)


class PresenceRow(msgspec.Struct, frozen=True):
    """One user's last presence; `member` is the number of the user's name."""

    member: int
    state: str
    status_msg: str | None
    last_active_ms: int
    position: int


async def find_presence(db: Connection, member: int) -> PresenceRow | None:
    """The last presence of a user, or `None` for one who was never online."""
    async with db.cursor(row_factory=class_row(PresenceRow)) as cursor:
        await cursor.execute(
            """
            SELECT member, state, status_msg, last_active_ms, position
              FROM presence
             WHERE member = %s
            """,
            (member,),
        )
        return await cursor.fetchone()


async def not_offline(db: Connection) -> list[PresenceRow]:
    """All users whose last published presence was not offline."""
    async with db.cursor(row_factory=class_row(PresenceRow)) as cursor:
        await cursor.execute(
            """
            SELECT member, state, status_msg, last_active_ms, position
              FROM presence
             WHERE state <> 'offline'
            """
        )
        return await cursor.fetchall()


async def presence_after(db: Connection, position: int, limit: int) -> list[PresenceRow]:
    """Presence that changed above a position of the log, most recently changed first."""
    async with db.cursor(row_factory=class_row(PresenceRow)) as cursor:
        await cursor.execute(
            """
            SELECT member, state, status_msg, last_active_ms, position
              FROM presence
             WHERE position > %s
             ORDER BY position DESC
             LIMIT %s
            """,
            (position, limit),
        )
        return await cursor.fetchall()

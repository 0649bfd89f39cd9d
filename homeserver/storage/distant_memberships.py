"""What users were told of rooms that this server is not in.

Owns the table `distant_memberships` (migrations/0012_distant_memberships.sql).
"""

from homeserver.storage.batch import BatchStatement
from homeserver.storage.database import Connection

UPSERT_DISTANT_MEMBERSHIP = BatchStatement(
    "upsert_distant_membership",
    """
    INSERT INTO distant_memberships (room, member, stripped)
    SELECT * FROM unnest(%s::int4[], %s::int4[], %s::bytea[])
        ON CONFLICT (room, member) DO UPDATE SET stripped = EXCLUDED.stripped
    """,
    columns=("int4", "int4", "bytea"),
    key=(0, 1),
)


async def stripped_state_of(db: Connection, room: int, member: int) -> bytes | None:
    """The stripped state that a user was told of a room, as a JSON list; `None` for none."""
    cursor = await db.execute(
        "SELECT stripped FROM distant_memberships WHERE room = %s AND member = %s", (room, member)
    )
    row = await cursor.fetchone()
    return row[0] if row else None

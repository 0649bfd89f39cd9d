"""Unsent invites: those of new rooms that need another server, until they are sent or refused.

Owns the table `unsent_invites` (migrations/0025_unsent_invites.sql).
"""

import msgspec
from psycopg.rows import class_row

from homeserver.storage.database.batch import BatchStatement
from homeserver.storage.database.database import Connection

INSERT_UNSENT_INVITE = BatchStatement(
    "insert_unsent_invite",
    """
    INSERT INTO unsent_invites (room, place, sender, is_direct, user_id, medium, address,
                                id_server, id_access_token)
    SELECT * FROM unnest(%s::int4[], %s::int4[], %s::text[], %s::bool[], %s::text[], %s::text[],
                         %s::text[], %s::text[], %s::text[])
        ON CONFLICT (room, place) DO NOTHING
    """,
    columns=("int4", "int4", "text", "bool", "text", "text", "text", "text", "text"),
)


class UnsentInvite(msgspec.Struct, frozen=True):
    """An invite of a user, or of an address through an identity server with its access token."""

    room: int
    place: int
    sender: str
    is_direct: bool
    user_id: str | None
    medium: str | None
    address: str | None
    id_server: str | None
    id_access_token: str | None


async def unsent_invites(db: Connection, limit: int) -> list[UnsentInvite]:
    """Unsent invites, those of one room after the other."""
    async with db.cursor(row_factory=class_row(UnsentInvite)) as cursor:
        await cursor.execute("SELECT * FROM unsent_invites ORDER BY room, place LIMIT %s", (limit,))
        return await cursor.fetchall()


async def delete_unsent_invite(db: Connection, room: int, place: int) -> None:
    """Record that an invite was sent, or cannot be."""
    await db.execute("DELETE FROM unsent_invites WHERE room = %s AND place = %s", (room, place))

"""Memberships: which rooms a user is in, or is invited to, or has left.

Owns the table `memberships` (migrations/0004_rooms.sql): for each user and room the newest
membership in the room's current state. The state tree says the same for one room; this says it for
one user.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from psycopg.rows import class_row

from homeserver.storage.batch import BatchStatement
from homeserver.storage.database import Connection

UPSERT_MEMBERSHIP = BatchStatement(
    "upsert_membership",
    """
    INSERT INTO memberships (member, room, membership, event, position, sender)
    SELECT * FROM unnest(%s::int4[], %s::int4[], %s::text[], %s::int8[], %s::int8[], %s::int4[])
        ON CONFLICT (member, room) DO UPDATE
       SET membership = EXCLUDED.membership, event = EXCLUDED.event,
           position = EXCLUDED.position, sender = EXCLUDED.sender, forgotten = false
    """,
    columns=("int4", "int4", "text", "int8", "int8", "int4"),
    key=(0, 1),
)

FORGET = BatchStatement(
    "forget_room",
    """
    UPDATE memberships SET forgotten = true
      FROM unnest(%s::int4[], %s::int4[]) AS left_room (member, room)
     WHERE memberships.member = left_room.member AND memberships.room = left_room.room
       AND memberships.membership IN ('leave', 'ban')
    """,
    columns=("int4", "int4"),
    key=(0, 1),
    late=True,
)


@dataclass(frozen=True, slots=True)
class MembershipRow:
    """One user's place in one room; `sender` is who put them there."""

    room: int
    membership: str
    event: int
    position: int
    sender: int
    forgotten: bool


async def memberships_of(db: Connection, member: int) -> list[MembershipRow]:
    """All rooms that a user is or was in, or is invited to."""
    async with db.cursor(row_factory=class_row(MembershipRow)) as cursor:
        await cursor.execute(
            """
            SELECT room, membership, event, position, sender, forgotten
              FROM memberships
             WHERE member = %s
            """,
            (member,),
        )
        return await cursor.fetchall()


async def memberships_in(db: Connection, room: int) -> dict[int, str]:
    """Member event to membership, for everybody who is or was in a room, or is invited to it."""
    cursor = await db.execute("SELECT event, membership FROM memberships WHERE room = %s", (room,))
    return dict(await cursor.fetchall())


async def joined_rooms_of_all(db: Connection, members: Sequence[int]) -> dict[int, set[int]]:
    """For each of the users the rooms they are joined to."""
    cursor = await db.execute(
        "SELECT member, room FROM memberships WHERE member = ANY(%s) AND membership = 'join'",
        (list(members),),
    )
    rooms: dict[int, set[int]] = {}
    for member, room in await cursor.fetchall():
        rooms.setdefault(member, set()).add(room)
    return rooms


async def joined_counts(db: Connection, rooms: Sequence[int]) -> dict[int, int]:
    """How many users are joined to each of the rooms; rooms without any are left out."""
    cursor = await db.execute(
        """
        SELECT room, count(*)
          FROM memberships
         WHERE room = ANY(%s) AND membership = 'join'
         GROUP BY room
        """,
        (list(rooms),),
    )
    return dict(await cursor.fetchall())

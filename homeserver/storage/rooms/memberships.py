"""Memberships: the rooms that each user is in, is invited to, or has left.

Owns the tables `memberships` and `distant_memberships` (migrations/0004_rooms.sql, and 0012 and
0022). The first has for each user and room the newest membership in the room's current state: the
state tree is the index by room, this the one by user. The second has the pending invites and knocks
in rooms that this server is not in, by the server that sent them; the first records which of them
the user sees.
"""

from collections.abc import Sequence

import msgspec
from psycopg.rows import class_row

from homeserver.storage.database.batch import BatchStatement
from homeserver.storage.database.database import Connection

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


UPSERT_OUT_OF_ROOM_MEMBERSHIP = BatchStatement(
    "upsert_distant_membership",
    """
    INSERT INTO distant_memberships (room, member, server, event, stripped, size)
    SELECT * FROM unnest(
               %s::int4[], %s::int4[], %s::text[], %s::int8[], %s::bytea[], %s::int4[])
        ON CONFLICT (member, room, server) DO UPDATE
       SET event = EXCLUDED.event, stripped = EXCLUDED.stripped, size = EXCLUDED.size
    """,
    columns=("int4", "int4", "text", "int8", "bytea", "int4"),
    key=(0, 1, 2),
)

DELETE_OUT_OF_ROOM_MEMBERSHIP = BatchStatement(
    "delete_distant_membership",
    """
    DELETE FROM distant_memberships
     USING unnest(%s::int4[], %s::int4[], %s::text[]) AS ended (room, member, server)
     WHERE distant_memberships.room = ended.room AND distant_memberships.member = ended.member
       AND distant_memberships.server = ended.server
    """,
    columns=("int4", "int4", "text"),
    key=(0, 1, 2),
)


class PendingRow(msgspec.Struct, frozen=True):
    """One server's invite of a user to a room, or the knock sent through it.

    `shown_membership` is the membership of the entry that the user sees.
    """

    server: str
    event: int
    is_shown: bool
    shown_membership: str


class PendingTotals(msgspec.Struct, frozen=True):
    """The number of pending memberships; sizes in bytes."""

    of_server: int
    of_user: int
    of_both: int
    size_of_user: int
    size_of_both: int


async def memberships_of(db: Connection, member: int) -> list[tuple[int, str, int, int, int, bool]]:
    """All rooms that a user is or was in, or is invited to, of which there may be thousands.

    (room, membership, event, position, the user who set it, whether it is forgotten).
    """
    cursor = await db.execute(
        """
        SELECT room, membership, event, position, sender, forgotten
          FROM memberships
         WHERE member = %s
        """,
        (member,),
        binary=True,
    )
    return await cursor.fetchall()


async def memberships_in(db: Connection, rooms: Sequence[int]) -> dict[int, str]:
    """Member event to membership, for all who are or were in the rooms, or are invited to them."""
    cursor = await db.execute(
        "SELECT event, membership FROM memberships WHERE room = ANY(%s::int4[])",
        (list(rooms),),
        binary=True,
    )
    return dict(await cursor.fetchall())


async def joined_rooms_of_all(db: Connection, members: Sequence[int]) -> dict[int, set[int]]:
    """The joined rooms of each of the users."""
    cursor = await db.execute(
        "SELECT member, room FROM memberships WHERE member = ANY(%s) AND membership = 'join'",
        (list(members),),
    )
    rooms: dict[int, set[int]] = {}
    for member, room in await cursor.fetchall():
        rooms.setdefault(member, set()).add(room)
    return rooms


async def joined_members_among(
    db: Connection, rooms: Sequence[int], members: Sequence[int]
) -> set[int]:
    """Those of some users who are joined to one of the rooms."""
    cursor = await db.execute(
        """
        SELECT DISTINCT member
          FROM memberships
         WHERE member = ANY(%s) AND room = ANY(%s) AND membership = 'join'
        """,
        (list(members), list(rooms)),
    )
    return {row[0] for row in await cursor.fetchall()}


async def joined_counts(db: Connection, rooms: Sequence[int]) -> dict[int, int]:
    """The number of joined users of each of the rooms; rooms without any are left out."""
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


async def pending_of(db: Connection, room: int, member: int) -> list[PendingRow]:
    """The pending memberships of a user in a room: the one that is shown first, then the oldest."""
    async with db.cursor(row_factory=class_row(PendingRow)) as cursor:
        await cursor.execute(
            """
            SELECT server, distant_memberships.event,
                   distant_memberships.event = memberships.event AS is_shown,
                   membership AS shown_membership
              FROM distant_memberships JOIN memberships USING (member, room)
             WHERE room = %s AND member = %s AND membership IN ('invite', 'knock')
             ORDER BY is_shown DESC, distant_memberships.event
            """,
            (room, member),
        )
        return await cursor.fetchall()


async def pending_totals(db: Connection, member: int, server: str) -> PendingTotals:
    """The totals of pending memberships: of a server, of a user, and of both together."""
    async with db.cursor(row_factory=class_row(PendingTotals)) as cursor:
        await cursor.execute(
            """
            SELECT count(*) FILTER (WHERE server = %(server)s) AS of_server,
                   count(*) FILTER (WHERE member = %(member)s) AS of_user,
                   count(*) FILTER (WHERE server = %(server)s AND member = %(member)s) AS of_both,
                   coalesce(sum(size) FILTER (WHERE member = %(member)s), 0) AS size_of_user,
                   coalesce(sum(size) FILTER (
                       WHERE server = %(server)s AND member = %(member)s), 0) AS size_of_both
              FROM distant_memberships JOIN memberships USING (member, room)
             WHERE (server = %(server)s OR member = %(member)s)
               AND membership IN ('invite', 'knock')
            """,
            {"server": server, "member": member},
        )
        totals = await cursor.fetchone()
        assert totals is not None
        return totals


async def forget_pending(db: Connection, room: int, member: int) -> None:
    """Delete all pending memberships of a user in a room."""
    await db.execute(
        "DELETE FROM distant_memberships WHERE room = %s AND member = %s", (room, member)
    )


async def stripped_state_of(db: Connection, room: int, member: int) -> bytes | None:
    """The stripped state of a room that a user sees, as a JSON list; `None` for none."""
    cursor = await db.execute(
        """
        SELECT stripped
          FROM distant_memberships JOIN memberships USING (member, room)
         WHERE room = %s AND member = %s
         ORDER BY distant_memberships.event = memberships.event DESC, distant_memberships.event
         LIMIT 1
        """,
        (room, member),
    )
    row = await cursor.fetchone()
    return row[0] if row else None

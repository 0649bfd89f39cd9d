"""What the user directory is made of: memberships, member events and profiles.

Reads the tables that `memberships.py`, `events.py` and `names.py` of `homeserver/storage/rooms`,
`profiles.py` and `users.py` of `homeserver/storage/accounts`, and `rooms.py` here own.
"""

from collections.abc import Sequence

import msgspec
from psycopg.rows import class_row, kwargs_row

from homeserver.storage.database.database import Connection
from homeserver.storage.rooms.event_json import unpack_json


class MemberRow(msgspec.Struct, frozen=True):
    """A joined member of a room: the user, and their member event unless it was redacted."""

    member: int
    user_id: str
    json: bytes | None


class ChangedMembers(msgspec.Struct, frozen=True):
    """Users whose memberships of a room changed at a position; `None` where there are many."""

    position: int
    room: int
    members: list[int] | None


async def joined_rows(db: Connection, room: int, members: Sequence[int]) -> list[MemberRow]:
    """Those of some users who are joined to a room."""
    async with db.cursor(row_factory=kwargs_row(_member_row), binary=True) as cursor:
        await cursor.execute(
            """
            SELECT member, names.name AS user_id,
                   CASE WHEN redacted_by IS NULL THEN json END AS json
              FROM memberships
              JOIN names ON names.nid = member
              JOIN events USING (event)
             WHERE memberships.room = %s AND member = ANY(%s::int4[]) AND membership = 'join'
            """,
            (room, list(members)),
        )
        return await cursor.fetchall()


async def public_rows(db: Connection, members: Sequence[int]) -> list[MemberRow]:
    """Of each of some users the newest membership of a room that everybody may see."""
    async with db.cursor(row_factory=kwargs_row(_member_row), binary=True) as cursor:
        await cursor.execute(
            """
            SELECT member, names.name AS user_id,
                   CASE WHEN redacted_by IS NULL THEN json END AS json
              FROM (SELECT DISTINCT ON (member) member, event
                      FROM memberships
                      JOIN user_directory_rooms USING (room)
                     WHERE member = ANY(%s::int4[]) AND membership = 'join'
                       AND visibility = 'everybody'
                     ORDER BY member, position DESC) AS newest
              JOIN names ON names.nid = member
              JOIN events USING (event)
            """,
            (list(members),),
        )
        return await cursor.fetchall()


async def some_public_rows(db: Connection, members: Sequence[int]) -> list[MemberRow]:
    """Those of some users who are joined to a room that everybody may see, without any event.

    The search ends with the first such room, as users may be in thousands of them.
    """
    async with db.cursor(row_factory=class_row(MemberRow)) as cursor:
        await cursor.execute(
            """
            SELECT wanted.member, names.name AS user_id, NULL::bytea AS json
              FROM unnest(%s::int4[]) AS wanted (member)
              JOIN names ON names.nid = wanted.member
             CROSS JOIN LATERAL (SELECT room
                                   FROM memberships
                                   JOIN user_directory_rooms USING (room)
                                  WHERE memberships.member = wanted.member
                                    AND membership = 'join' AND visibility = 'everybody'
                                  LIMIT 1) AS found
            """,
            (list(members),),
        )
        return await cursor.fetchall()


def _member_row(*, member: int, user_id: str, json: bytes | None) -> MemberRow:
    return MemberRow(member, user_id, None if json is None else unpack_json(json))


async def joined_members(db: Connection, room: int) -> list[int]:
    """The nids of all users who are joined to a room."""
    cursor = await db.execute(
        "SELECT member FROM memberships WHERE room = %s AND membership = 'join'",
        (room,),
        binary=True,
    )
    return [row[0] for row in await cursor.fetchall()]


async def joined_rooms(db: Connection, member: int) -> list[int]:
    """The nids of all rooms that a user is joined to."""
    cursor = await db.execute(
        "SELECT room FROM memberships WHERE member = %s AND membership = 'join'", (member,)
    )
    return [row[0] for row in await cursor.fetchall()]


async def has_joined_user_of(db: Connection, room: int, server_name: str) -> bool:
    """Whether a user of a server is joined to a room; reads its members until one is found."""
    cursor = await db.execute(
        """
        SELECT EXISTS (
               SELECT FROM memberships
                WHERE room = %s AND membership = 'join'
                  AND (SELECT substr(name, strpos(name, ':') + 1) = %s
                         FROM names WHERE nid = memberships.member))
        """,
        (room, server_name),
    )
    row = await cursor.fetchone()
    assert row is not None, "EXISTS has a row"
    return bool(row[0])


async def profile_fields(
    db: Connection, user_ids: Sequence[str], fields: Sequence[str]
) -> list[tuple[str, str, bytes]]:
    """(user id, field, value as JSON) of these fields of users of this server."""
    cursor = await db.execute(
        """
        SELECT user_id, field, value
          FROM profiles
         WHERE user_id = ANY(%s) AND field = ANY(%s) AND value IS NOT NULL
        """,
        (list(user_ids), list(fields)),
    )
    return await cursor.fetchall()


async def changed_members_between(
    db: Connection, after: int, upto: int, many: int
) -> list[ChangedMembers]:
    """The newest changes of memberships in all rooms; more than `many` at once are not named."""
    async with db.cursor(row_factory=class_row(ChangedMembers)) as cursor:
        await cursor.execute(
            """
            SELECT position, room, CASE WHEN count(*) <= %s THEN array_agg(member) END AS members
              FROM memberships
             WHERE position > %s AND position <= %s
             GROUP BY position, room
            """,
            (many, after, upto),
        )
        return await cursor.fetchall()


async def events_of_types_between(
    db: Connection, after: int, upto: int, types: Sequence[int]
) -> list[tuple[int, int, int]]:
    """(position, room, event) of the timeline events of these types."""
    cursor = await db.execute(
        """
        SELECT position, room, event
          FROM events
         WHERE position > %s AND position <= %s AND position > 0 AND type = ANY(%s)
        """,
        (after, upto, list(types)),
    )
    return await cursor.fetchall()

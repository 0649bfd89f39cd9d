"""What an application service has missed, in the order of the log.

Reads the tables that `memberships.py`, `to_device.py` and `users.py` own.
"""

from typing import NamedTuple

from homeserver.storage.database.database import Connection


class MessageToUser(NamedTuple):
    """A message to a device of one of an application service's users, an event as JSON."""

    position: int
    user_id: str
    device_id: str
    message: bytes


async def messages_between(
    db: Connection, appservice: str, after: int, upto: int, limit: int
) -> tuple[list[MessageToUser], int]:
    """The messages with `after < position <= upto` to users that an application service made.

    They are about `limit` at most; those of one position are never separated. The position up to
    which they are complete is the second result.
    """
    cursor = await db.execute(
        """
        SELECT position, user_id, device_id, message
          FROM to_device_messages JOIN users USING (user_id)
         WHERE position > %(after)s AND position <= %(upto)s AND appservice = %(appservice)s
         ORDER BY position
         FETCH FIRST %(limit)s ROWS WITH TIES
        """,
        {"after": after, "upto": upto, "appservice": appservice, "limit": limit},
    )
    rows = [MessageToUser(row[0], row[1], row[2], bytes(row[3])) for row in await cursor.fetchall()]
    return rows, upto if len(rows) < limit else rows[-1].position


async def remote_invites_between(
    db: Connection, after: int, upto: int
) -> list[tuple[int, int, int]]:
    """(position, room, event) of invites and knocks to rooms that this server is not in."""
    cursor = await db.execute(
        """
        SELECT memberships.position, memberships.room, memberships.event
          FROM memberships JOIN distant_memberships USING (room, member, event)
         WHERE memberships.position > %s AND memberships.position <= %s
         ORDER BY memberships.position
        """,
        (after, upto),
    )
    return await cursor.fetchall()


async def shares_room(db: Connection, appservice: str, rooms: list[int]) -> bool:
    """Whether a user that an application service made is joined to one of these rooms."""
    cursor = await db.execute(
        """
        SELECT EXISTS (
               SELECT
                 FROM memberships
                 JOIN names ON names.nid = memberships.member
                 JOIN users ON users.user_id = names.name
                WHERE room = ANY(%s) AND membership = 'join' AND appservice = %s)
        """,
        (rooms, appservice),
    )
    row = await cursor.fetchone()
    return row is not None and bool(row[0])

"""The servers in rooms, found by the members of the rooms.

Reads the tables that `memberships.py` and `names.py` of `homeserver/storage/rooms` own.
"""

from collections.abc import Sequence

from homeserver.storage.database.database import Connection


async def servers_in_rooms(db: Connection, rooms: Sequence[int]) -> list[tuple[int, str]]:
    """(room, server) for each server that has a user who is joined to one of the rooms."""
    cursor = await db.execute(
        """
        SELECT DISTINCT memberships.room, substr(names.name, strpos(names.name, ':') + 1)
          FROM memberships
          JOIN names ON names.nid = memberships.member
         WHERE memberships.room = ANY(%s) AND memberships.membership = 'join'
        """,
        (list(rooms),),
    )
    return await cursor.fetchall()


async def servers_joined_before(
    db: Connection, rooms: Sequence[int], position: int
) -> set[tuple[int, str]]:
    """(room, server) for each server that has a user whose join is not above a position."""
    cursor = await db.execute(
        """
        SELECT DISTINCT memberships.room, substr(names.name, strpos(names.name, ':') + 1)
          FROM memberships
          JOIN names ON names.nid = memberships.member
         WHERE memberships.room = ANY(%s) AND memberships.membership = 'join'
           AND memberships.position <= %s
        """,
        (list(rooms), position),
    )
    return {(room, server) for room, server in await cursor.fetchall()}

"""The room directories of application services: the rooms that each lists for its networks.

Owns the table `appservice_rooms` (migrations/0030_appservice_rooms.sql). Rooms are numbers of
`names`.
"""

from collections.abc import Sequence

from homeserver.storage.database.batch import BatchStatement
from homeserver.storage.database.database import Connection

SET_LISTED = BatchStatement(
    "set_appservice_room",
    """
    INSERT INTO appservice_rooms (appservice, network, room, is_listed)
    SELECT * FROM unnest(%s::text[], %s::text[], %s::int4[], %s::bool[])
        ON CONFLICT (appservice, network, room) DO UPDATE SET is_listed = EXCLUDED.is_listed
    """,
    columns=("text", "text", "int4", "bool"),
    key=(0, 1, 2),
)


async def rooms_of_network(db: Connection, appservice: str, network: str) -> list[int]:
    """Numbers of all rooms in one list."""
    cursor = await db.execute(
        """
        SELECT room FROM appservice_rooms
         WHERE appservice = %s AND network = %s AND is_listed
         ORDER BY room
        """,
        (appservice, network),
    )
    return [row[0] for row in await cursor.fetchall()]


async def rooms_of_appservices(db: Connection, appservices: Sequence[str]) -> list[int]:
    """Numbers of all rooms in the lists of some application services."""
    cursor = await db.execute(
        """
        SELECT DISTINCT room FROM appservice_rooms
         WHERE appservice = ANY(%s) AND is_listed
         ORDER BY room
        """,
        (list(appservices),),
    )
    return [row[0] for row in await cursor.fetchall()]

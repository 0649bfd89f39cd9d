"""The deletion of all rows of a room, from every table that has some.

`tests/storage/test_room_deletion.py` compares the tables of the database with the ones here: a new
table is either deleted from, or has its reason there.
"""

from typing import Final

from homeserver.storage.database.database import Connection

# What makes the room known goes first: from then on nobody finds it.
KNOWN: Final = ("rooms", "memberships", "distant_memberships", "room_aliases")
BY_ROOM: Final = (
    "appservice_rooms",
    "backward_extremities",
    "current_states",
    "early_redactions",
    "expiring_events",
    "mentions",
    "outbox_rooms",
    "partial_rooms",
    "receipts",
    "retention_rooms",
    "search_blocks",
    "sticky_events",
    "thread_subscriptions",
    "timeline_gaps",
    "unsent_invites",
    "user_directory_rooms",
)
BY_SCOPE: Final = ("user_directory_entries", "user_directory_keys")
BY_ROOM_ID: Final = ("account_data", "delayed_events")
# Deleted together with the events that they are made of.
BY_EVENT: Final = {"relations": "child", "auth_edges": "event", "search_removals": "event"}


async def delete_known_room(db: Connection, room: int) -> None:
    """Make a room unknown: without these rows it is never loaded again."""
    for table in KNOWN:
        await db.execute(f"DELETE FROM {table} WHERE room = %s", (room,))


async def delete_of_room(db: Connection, table: str, room: int, room_id: str, limit: int) -> int:
    """Delete some rows of a room from one of the tables; returns their number."""
    column = "room_id" if table in BY_ROOM_ID else "scope" if table in BY_SCOPE else "room"
    cursor = await db.execute(
        f"""
        DELETE FROM {table}
         WHERE ctid = ANY (ARRAY(SELECT ctid FROM {table} WHERE {column} = %s LIMIT %s))
        """,
        (room_id if table in BY_ROOM_ID else room, limit),
    )
    return cursor.rowcount


async def delete_events_of_room(db: Connection, room: int, limit: int) -> int:
    """Delete some events of a room, with what belongs to them; returns their number."""
    cursor = await db.execute("SELECT event FROM events WHERE room = %s LIMIT %s", (room, limit))
    events = [row[0] for row in await cursor.fetchall()]
    for table, column in BY_EVENT.items():
        await db.execute(f"DELETE FROM {table} WHERE {column} = ANY(%s)", (events,))
    # Last, as it locks what the garbage collection of states needs.
    await db.execute("DELETE FROM events WHERE event = ANY(%s)", (events,))
    return len(events)


async def count_events_of_room(db: Connection, room: int) -> int:
    """The number of all events that are stored of a room."""
    cursor = await db.execute("SELECT count(*) FROM events WHERE room = %s", (room,))
    row = await cursor.fetchone()
    return row[0] if row else 0

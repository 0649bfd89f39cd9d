"""Thread subscriptions: the threads of which users want to be notified.

Owns the table `thread_subscriptions` (migrations/0041_thread_subscriptions.sql), which has one row
for each thread and user who has ever subscribed to it.
"""

import msgspec
from psycopg.rows import class_row

from homeserver.protocol.proposals.thread_subscriptions import ThreadSubscription
from homeserver.storage.database.batch import BatchStatement
from homeserver.storage.database.database import Connection

# Sorted, so that two processes never deadlock.
SET_THREAD_SUBSCRIPTION = BatchStatement(
    "set_thread_subscription",
    """
    INSERT INTO thread_subscriptions (room, root, user_id, is_subscribed, is_automatic, position)
    SELECT * FROM unnest(%s::int4[], %s::text[], %s::text[], %s::bool[], %s::bool[], %s::int8[])
     ORDER BY 1, 2, 3
        ON CONFLICT (room, root, user_id) DO UPDATE
       SET is_subscribed = EXCLUDED.is_subscribed, is_automatic = EXCLUDED.is_automatic,
           position = EXCLUDED.position
     WHERE thread_subscriptions.position < EXCLUDED.position
    """,
    columns=("int4", "text", "text", "bool", "bool", "int8"),
    key=(0, 1, 2),
)

# Late, so that what was set before it in the same batch is deleted, too.
DELETE_THREAD_SUBSCRIPTIONS = BatchStatement(
    "delete_thread_subscriptions",
    "DELETE FROM thread_subscriptions WHERE user_id = ANY (SELECT * FROM unnest(%s::text[]))",
    columns=("text",),
    late=True,
)


class SubscriptionRow(msgspec.Struct, frozen=True):
    """One subscription of a user."""

    room: int
    root: str
    is_subscribed: bool
    is_automatic: bool
    position: int


async def find_subscription(
    db: Connection, room: int, root: str, user_id: str
) -> ThreadSubscription | None:
    """What a user last did with a thread."""
    async with db.cursor(row_factory=class_row(ThreadSubscription)) as cursor:
        await cursor.execute(
            """
            SELECT is_subscribed, is_automatic, position
              FROM thread_subscriptions
             WHERE room = %s AND root = %s AND user_id = %s
            """,
            (room, root, user_id),
        )
        return await cursor.fetchone()


async def subscribers_of(db: Connection, room: int, root: str) -> dict[str, int]:
    """The users who are subscribed to a thread, with the positions at which they began."""
    cursor = await db.execute(
        """
        SELECT user_id, position
          FROM thread_subscriptions
         WHERE room = %s AND root = %s AND is_subscribed
        """,
        (room, root),
    )
    return dict(await cursor.fetchall())


async def count_subscriptions(db: Connection, user_id: str, limit: int) -> int:
    """The number of rows of a user, up to a limit."""
    cursor = await db.execute(
        """
        SELECT count(*)
          FROM (SELECT FROM thread_subscriptions WHERE user_id = %s LIMIT %s) AS counted
        """,
        (user_id, limit),
    )
    row = await cursor.fetchone()
    return row[0] if row else 0


async def changed_subscriptions(
    db: Connection, user_id: str, after: int, upto: int, limit: int
) -> list[SubscriptionRow]:
    """The newest changes of a user's subscriptions above one position up to another one."""
    async with db.cursor(row_factory=class_row(SubscriptionRow)) as cursor:
        await cursor.execute(
            """
            SELECT room, root, is_subscribed, is_automatic, position
              FROM thread_subscriptions
             WHERE user_id = %s AND position > %s AND position <= %s
             ORDER BY position DESC
             LIMIT %s
            """,
            (user_id, after, upto, limit),
        )
        return await cursor.fetchall()

"""Relations between the events of a room: replies in threads, edits, annotations, references.

Owns the table `relations` (migrations/0009_relations.sql), with one row for each event that relates
to another one. Rooms, event types and senders are numbers of `names`; parents are named by event
id, since a child can be known before its parent. A row with another room than its parent's is not a
relation, so every query names the room. `upto` is a log position: later events are left out.
"""

from collections.abc import Sequence

import msgspec
from psycopg.rows import class_row

from homeserver.storage.database.batch import BatchStatement
from homeserver.storage.database.database import Connection

INSERT_RELATION = BatchStatement(
    "insert_relation",
    """
    INSERT INTO relations (child, room, parent_id, rel_type, key, child_id, type, sender, depth,
                           position, origin_server_ts)
    SELECT * FROM unnest(%s::int8[], %s::int4[], %s::text[], %s::text[], %s::text[], %s::text[],
                         %s::int4[], %s::int4[], %s::int8[], %s::int8[], %s::int8[])
        ON CONFLICT (child) DO UPDATE
       SET child = refuse_taken_key('relations', relations.child::text)
     WHERE (relations.room, relations.child_id) <> (EXCLUDED.room, EXCLUDED.child_id)
    """,
    columns=(
        "int8", "int4", "text", "text", "text", "text", "int4", "int4", "int8", "int8", "int8",
    ),
)  # fmt: skip

DELETE_RELATION = BatchStatement(
    "delete_relation",
    "DELETE FROM relations WHERE child = ANY (SELECT * FROM unnest(%s::int8[]))",
    columns=("int8",),
    late=True,
)

_TREE = """
    WITH RECURSIVE tree AS (
        SELECT child, child_id, depth, position, 1 AS level
          FROM relations
         WHERE parent_id = %(parent_id)s AND room = %(room)s
           AND (%(rel_type)s::text IS NULL OR rel_type = %(rel_type)s)
           AND (%(type)s::int4 IS NULL OR type = %(type)s)
         UNION
        SELECT relations.child, relations.child_id, relations.depth, relations.position, level + 1
          FROM tree
          JOIN relations ON relations.parent_id = tree.child_id
         WHERE room = %(room)s AND level < %(levels)s
           AND (%(rel_type)s::text IS NULL OR rel_type = %(rel_type)s)
           AND (%(type)s::int4 IS NULL OR type = %(type)s)
    )
"""
_FROM_TREE = "FROM tree WHERE true"
_FROM_CHILDREN = """
     FROM relations
    WHERE parent_id = %(parent_id)s AND room = %(room)s
      AND (%(rel_type)s::text IS NULL OR rel_type = %(rel_type)s)
      AND (%(type)s::int4 IS NULL OR type = %(type)s)
"""
_BACKWARDS = """
    AND (depth, position) <= (%(depth)s, %(position)s)
    AND (depth, position) > (%(to_depth)s, %(to_position)s)
  ORDER BY depth DESC, position DESC LIMIT %(limit)s
"""
_FORWARDS = """
    AND (depth, position) > (%(depth)s, %(position)s)
    AND (depth, position) <= (%(to_depth)s, %(to_position)s)
  ORDER BY depth, position LIMIT %(limit)s
"""


class ChildrenQuery(msgspec.Struct, frozen=True, kw_only=True):
    """The wanted children of an event: of a relation type, of an event type, or of any.

    With `levels` above 1 their children too, down to that level, as long as all on the way match.
    """

    room: int
    parent_id: str
    rel_type: str | None = None
    type: int | None = None
    levels: int = 1
    backwards: bool = True


class ThreadPart(msgspec.Struct, frozen=True):
    """One user's events in a thread: how many, and (depth, position, event) of the last."""

    parent_id: str
    sender: int
    count: int
    latest: list[int]


class EditRow(msgspec.Struct, frozen=True):
    """The latest edit of an event by one sender with one event type."""

    parent_id: str
    type: int
    sender: int
    child: int


class ReferenceRow(msgspec.Struct, frozen=True):
    """One event that refers to another."""

    parent_id: str
    sender: int
    child_id: str


async def relation_types(
    db: Connection, parents: Sequence[str], wanted: Sequence[str]
) -> list[tuple[str, str]]:
    """(parent, relation type) for each of the wanted types of which an event has children."""
    cursor = await db.execute(
        """
        SELECT DISTINCT parent_id, rel_type
          FROM relations
         WHERE parent_id = ANY(%s) AND rel_type = ANY(%s)
        """,
        (list(parents), list(wanted)),
    )
    return await cursor.fetchall()


async def thread_parts(
    db: Connection, room: int, parents: Sequence[str], upto: int
) -> list[ThreadPart]:
    """The threads of these events, one part for each participating user."""
    async with db.cursor(row_factory=class_row(ThreadPart)) as cursor:
        await cursor.execute(
            """
            SELECT parent_id, sender, count(*) AS count,
                   max(ARRAY[depth, position, child]) AS latest
              FROM relations
             WHERE parent_id = ANY(%s) AND room = %s AND rel_type = 'm.thread' AND position <= %s
             GROUP BY parent_id, sender
            """,
            (list(parents), room, upto),
        )
        return await cursor.fetchall()


async def latest_edits(
    db: Connection, room: int, parents: Sequence[str], upto: int
) -> list[EditRow]:
    """The latest edit of each of these events by each sender and of each event type."""
    async with db.cursor(row_factory=class_row(EditRow)) as cursor:
        await cursor.execute(
            """
            SELECT DISTINCT ON (parent_id, type, sender) parent_id, type, sender, child
              FROM relations
             WHERE parent_id = ANY(%s) AND room = %s AND rel_type = 'm.replace' AND position <= %s
             ORDER BY parent_id, type, sender, origin_server_ts DESC, child_id COLLATE "C" DESC
            """,
            (list(parents), room, upto),
        )
        return await cursor.fetchall()


async def references(
    db: Connection, room: int, parents: Sequence[str], upto: int, limit: int
) -> list[ReferenceRow]:
    """The events that refer to these, in topological order."""
    async with db.cursor(row_factory=class_row(ReferenceRow)) as cursor:
        await cursor.execute(
            """
            SELECT parent_id, sender, child_id
              FROM relations
             WHERE parent_id = ANY(%s) AND room = %s AND rel_type = 'm.reference' AND position <= %s
             ORDER BY depth, position
             LIMIT %s
            """,
            (list(parents), room, upto, limit),
        )
        return await cursor.fetchall()


async def has_annotated(
    db: Connection, room: int, parent_id: str, event_type: int, sender: int, key: str
) -> bool:
    """Whether a user has annotated an event with this event type and key."""
    cursor = await db.execute(
        """
        SELECT FROM relations
         WHERE parent_id = %s AND room = %s AND rel_type = 'm.annotation'
           AND type = %s AND sender = %s AND key = %s
         LIMIT 1
        """,
        (parent_id, room, event_type, sender, key),
    )
    return await cursor.fetchone() is not None


async def children(
    db: Connection,
    wanted: ChildrenQuery,
    place: tuple[int, int],
    bound: tuple[int, int],
    limit: int,
) -> list[tuple[int, int, int]]:
    """(depth, position, event) of the next children from one topological place towards another."""
    order = _BACKWARDS if wanted.backwards else _FORWARDS
    if wanted.levels > 1:
        statement = f"{_TREE} SELECT DISTINCT depth, position, child {_FROM_TREE} {order}"
    else:
        statement = f"SELECT depth, position, child {_FROM_CHILDREN} {order}"
    cursor = await db.execute(
        statement,
        {
            "parent_id": wanted.parent_id,
            "room": wanted.room,
            "rel_type": wanted.rel_type,
            "type": wanted.type,
            "levels": wanted.levels,
            "depth": place[0],
            "position": place[1],
            "to_depth": bound[0],
            "to_position": bound[1],
            "limit": limit,
        },
    )
    return await cursor.fetchall()


async def newest_threads(
    db: Connection, room: int, place: tuple[int, int], upto: int, limit: int
) -> list[tuple[int, int, str]]:
    """(depth, position, root) of the threads whose last event is not after a topological place.

    Newest first; the place is that of a thread's last event. Threads are found by walking their
    events backwards and skipping those that a later event of the same thread follows.
    """
    cursor = await db.execute(
        """
        SELECT depth, position, parent_id
          FROM relations AS latest
         WHERE room = %(room)s AND rel_type = 'm.thread' AND position <= %(upto)s
           AND (depth, position) <= (%(depth)s, %(position)s)
           AND NOT EXISTS (
               SELECT FROM relations AS later
                WHERE later.parent_id = latest.parent_id AND later.room = latest.room
                  AND later.rel_type = 'm.thread' AND later.position <= %(upto)s
                  AND (later.depth, later.position) > (latest.depth, latest.position))
         ORDER BY depth DESC, position DESC
         LIMIT %(limit)s
        """,
        {
            "room": room,
            "upto": upto,
            "depth": place[0],
            "position": place[1],
            "limit": limit,
        },
    )
    return await cursor.fetchall()

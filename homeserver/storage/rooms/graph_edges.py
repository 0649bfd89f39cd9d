"""Graph edges: where this server's copy of a room's event graph ends.

Owns the tables `backward_extremities`, missing events that timeline events follow, `timeline_gaps`,
the positions at which a timeline is incomplete because of that, and `early_redactions`, redactions
whose targets are missing (migrations/0010_event_graph.sql, 0017_withheld_redactions.sql and
0019_timeline_gaps.sql).
"""

from collections.abc import Sequence

import msgspec

from homeserver.storage.database.batch import BatchStatement
from homeserver.storage.database.database import Connection

INSERT_BACKWARD_EXTREMITY = BatchStatement(
    "insert_backward_extremity",
    """
    INSERT INTO backward_extremities (room, event_id, depth)
    SELECT * FROM unnest(%s::int4[], %s::text[], %s::int8[])
        ON CONFLICT (room, event_id) DO UPDATE
       SET depth = GREATEST(backward_extremities.depth, EXCLUDED.depth)
    """,
    columns=("int4", "text", "int8"),
    key=(0, 1),
)

DELETE_BACKWARD_EXTREMITY = BatchStatement(
    "delete_backward_extremity",
    """
    DELETE FROM backward_extremities
     USING unnest(%s::int4[], %s::text[]) AS arrived (room, event_id)
     WHERE backward_extremities.room = arrived.room
       AND backward_extremities.event_id = arrived.event_id
    """,
    columns=("int4", "text"),
    key=(0, 1),
    late=True,
)

INSERT_TIMELINE_GAP = BatchStatement(
    "insert_timeline_gap",
    """
    INSERT INTO timeline_gaps (room, position)
    SELECT * FROM unnest(%s::int4[], %s::int8[])
        ON CONFLICT DO NOTHING
    """,
    columns=("int4", "int8"),
)

INSERT_PENDING_REDACTION = BatchStatement(
    "insert_early_redaction",
    """
    INSERT INTO early_redactions (room, target, redaction, is_past)
    SELECT * FROM unnest(%s::int4[], %s::text[], %s::int8[], %s::bool[])
        ON CONFLICT DO NOTHING
    """,
    columns=("int4", "text", "int8", "bool"),
)

DELETE_PENDING_REDACTIONS = BatchStatement(
    "delete_early_redactions",
    """
    DELETE FROM early_redactions
     USING unnest(%s::int4[], %s::text[]) AS arrived (room, target)
     WHERE early_redactions.room = arrived.room
       AND early_redactions.target = arrived.target
    """,
    columns=("int4", "text"),
    key=(0, 1),
    late=True,
)
"""The target of redactions was received: they take effect now or never."""


async def backward_extremities(db: Connection, room: int) -> dict[str, int]:
    """The missing events of a room: event id to the depth of the event that follows it."""
    cursor = await db.execute(
        "SELECT event_id, depth FROM backward_extremities WHERE room = %s", (room,)
    )
    return dict(await cursor.fetchall())


class GraphEdges(msgspec.Struct, frozen=True):
    """The missing parts of a room's graph.

    `backward_extremities` are the missing events, with the depth of the events that follow them;
    `pending_redactions` the targets of redactions, with the numbers of these, each with whether it
    was backfilled. `timeline_gaps` are the newest positions at which the timeline is incomplete, in
    descending order.
    """

    backward_extremities: dict[str, int]
    pending_redactions: dict[str, dict[int, bool]]
    timeline_gaps: list[int]


async def graph_edges(
    db: Connection, rooms: Sequence[int], timeline_gaps: int
) -> dict[int, GraphEdges]:
    """The graph edges of rooms, with the `timeline_gaps` newest gaps in the timeline of each."""
    cursor = await db.execute(
        """
        SELECT room, event_id, depth, NULL
          FROM backward_extremities
         WHERE room = ANY(%(rooms)s::int4[])
         UNION ALL
        (SELECT room, target, redaction, is_past
           FROM early_redactions
          WHERE room = ANY(%(rooms)s::int4[])
          ORDER BY redaction)
         UNION ALL
        SELECT wanted.room, NULL, newest.position, NULL
          FROM unnest(%(rooms)s::int4[]) AS wanted (room)
         CROSS JOIN LATERAL (SELECT position
                               FROM timeline_gaps
                              WHERE timeline_gaps.room = wanted.room
                              ORDER BY position DESC
                              LIMIT %(limit)s) AS newest
        """,
        {"rooms": list(rooms), "limit": timeline_gaps},
    )
    found = {room: GraphEdges({}, {}, []) for room in rooms}
    for room, event_id, number, is_past in await cursor.fetchall():
        edges = found[room]
        if event_id is None:
            edges.timeline_gaps.append(number)
        elif is_past is None:
            edges.backward_extremities[event_id] = number
        else:
            edges.pending_redactions.setdefault(event_id, {})[number] = is_past
    return found


async def newest_timeline_gap(db: Connection, room: int, upto: int) -> int:
    """The newest position up to `upto` at which a room's timeline is incomplete; 0 for none."""
    cursor = await db.execute(
        "SELECT max(position) FROM timeline_gaps WHERE room = %s AND position <= %s", (room, upto)
    )
    row = await cursor.fetchone()
    return (row[0] if row else None) or 0

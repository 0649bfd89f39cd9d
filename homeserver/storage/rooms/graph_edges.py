"""The edges of what this server has of a room's graph.

Owns the tables `backward_extremities`, the events that timeline events follow and that are not
here, `timeline_gaps`, the positions at which a timeline is broken because of that, and
`early_redactions`, redactions whose targets are not here (migrations/0010_event_graph.sql,
0017_withheld_redactions.sql and 0019_timeline_gaps.sql).
"""

from dataclasses import dataclass

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
"""The target of redactions arrived: they have their effect, or never will."""


async def backward_extremities(db: Connection, room: int) -> dict[str, int]:
    """Event id to the depth of what follows it, of all missing events of a room."""
    cursor = await db.execute(
        "SELECT event_id, depth FROM backward_extremities WHERE room = %s", (room,)
    )
    return dict(await cursor.fetchall())


@dataclass(frozen=True, slots=True)
class GraphEdges:
    """What of a room's graph is not here.

    `backward_extremities` are the missing events, with the depth of what follows them;
    `early_redactions` the targets of redactions, with the numbers of these, each with whether it is
    of the past. `timeline_gaps` are the newest positions at which the timeline is broken, in
    descending order.
    """

    backward_extremities: dict[str, int]
    early_redactions: dict[str, dict[int, bool]]
    timeline_gaps: list[int]


async def graph_edges(db: Connection, room: int, timeline_gaps: int) -> GraphEdges:
    """The edges of what is here of a room, with so many of the newest gaps in its timeline."""
    cursor = await db.execute(
        """
        SELECT event_id, depth, NULL FROM backward_extremities WHERE room = %(room)s
         UNION ALL
        (SELECT target, redaction, is_past
           FROM early_redactions
          WHERE room = %(room)s
          ORDER BY redaction)
         UNION ALL
        (SELECT NULL, position, NULL
           FROM timeline_gaps
          WHERE room = %(room)s
          ORDER BY position DESC
          LIMIT %(limit)s)
        """,
        {"room": room, "limit": timeline_gaps},
    )
    edges = GraphEdges({}, {}, [])
    for event_id, number, is_past in await cursor.fetchall():
        if event_id is None:
            edges.timeline_gaps.append(number)
        elif is_past is None:
            edges.backward_extremities[event_id] = number
        else:
            edges.early_redactions.setdefault(event_id, {})[number] = is_past
    return edges


async def newest_timeline_gap(db: Connection, room: int, upto: int) -> int:
    """The newest position up to another at which a room's timeline is broken; 0 for none."""
    cursor = await db.execute(
        "SELECT max(position) FROM timeline_gaps WHERE room = %s AND position <= %s", (room, upto)
    )
    row = await cursor.fetchone()
    return (row[0] if row else None) or 0

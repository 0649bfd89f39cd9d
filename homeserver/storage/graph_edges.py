"""The edges of what this server has of a room's graph.

Owns the tables `backward_extremities`, the events that timeline events follow and that are not
here, and `early_redactions`, redactions whose targets are not (migrations/0010_event_graph.sql and
0017_withheld_redactions.sql).
"""

from dataclasses import dataclass

from homeserver.storage.batch import BatchStatement
from homeserver.storage.database import Connection

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

INSERT_EARLY_REDACTION = BatchStatement(
    "insert_early_redaction",
    """
    INSERT INTO early_redactions (room, target, redaction, is_past)
    SELECT * FROM unnest(%s::int4[], %s::text[], %s::int8[], %s::bool[])
        ON CONFLICT DO NOTHING
    """,
    columns=("int4", "text", "int8", "bool"),
)

DELETE_EARLY_REDACTIONS = BatchStatement(
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

    `gaps` are the missing events, with the depth of what follows them; `early_redactions` the
    targets of redactions, with the numbers of these, each with whether it is of the past.
    """

    gaps: dict[str, int]
    early_redactions: dict[str, dict[int, bool]]


async def graph_edges(db: Connection, room: int) -> GraphEdges:
    """The edges of what is here of a room."""
    cursor = await db.execute(
        """
        SELECT event_id, depth, NULL FROM backward_extremities WHERE room = %(room)s
         UNION ALL
        (SELECT target, redaction, is_past
           FROM early_redactions
          WHERE room = %(room)s
          ORDER BY redaction)
        """,
        {"room": room},
    )
    edges = GraphEdges({}, {})
    for event_id, number, is_past in await cursor.fetchall():
        if is_past is None:
            edges.gaps[event_id] = number
        else:
            edges.early_redactions.setdefault(event_id, {})[number] = is_past
    return edges

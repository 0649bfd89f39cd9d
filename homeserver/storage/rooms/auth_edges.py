"""Auth edges: the auth events of each state event, by number.

Owns the table `auth_edges` (migrations/0016_auth_chains.sql), which has one row for each auth event
of a state event, whether or not it was accepted. An event is stored after its auth events and so
has a larger number: the order of numbers is one of the graph, and no sender chooses it.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import psycopg

from homeserver.storage.database.batch import BatchStatement, Row
from homeserver.storage.database.database import Connection

INSERT_AUTH_EDGES = BatchStatement(
    "insert_auth_edges",
    """
    INSERT INTO auth_edges (event, auth_event)
    SELECT citing.event, cited.event
      FROM unnest(%s::int8[], %s::text[]) AS citing (event, auth_events)
     CROSS JOIN LATERAL unnest(citing.auth_events::int8[]) AS cited (event)
        ON CONFLICT DO NOTHING
    """,
    columns=("int8", "text"),
)


def auth_edge_rows(event: int, auth_events: Iterable[int]) -> list[Row]:
    """The rows that store the auth events of an event."""
    cited = ",".join(map(str, dict.fromkeys(auth_events)))
    return [INSERT_AUTH_EDGES.row(event, f"{{{cited}}}")] if cited else []


async def auth_edges(db: Connection, events: Collection[int]) -> list[tuple[int, list[int]]]:
    """(event, its auth events) of those of the events that have any."""
    async with db.cursor(binary=True) as cursor:
        await cursor.execute(
            """
            SELECT event, array_agg(auth_event)
              FROM auth_edges
             WHERE event = ANY(%s::int8[])
             GROUP BY event
            """,
            (list(events),),
        )
        return await cursor.fetchall()


async def auth_edges_beyond(
    db: Connection, events: Collection[int], limit: int, lowest: int = 0
) -> list[tuple[int, list[int]]]:
    """(event, its auth events) of these events, of their auth events, and so on.

    In the order of the walk, until there are `limit` of them; events below `lowest` are left out.
    """
    # A condition for each event by itself, so that the index is used even for a large walk.
    async with db.cursor(binary=True) as cursor:
        await cursor.execute(
            """
            WITH RECURSIVE walked (event) AS (
                SELECT unnest(%s::int8[])
                 UNION
                SELECT edge.auth_event
                  FROM walked
                 CROSS JOIN LATERAL (SELECT auth_event
                                       FROM auth_edges
                                      WHERE auth_edges.event = walked.event
                                        AND auth_event >= %s
                                     OFFSET 0) AS edge
            )
            SELECT event, ARRAY(SELECT auth_event
                                  FROM auth_edges
                                 WHERE auth_edges.event = walked.event)
              FROM walked
             LIMIT %s
            """,
            (list(events), lowest, limit),
        )
        return await cursor.fetchall()


async def citing_events(
    db: Connection, events: Collection[int], limit: int
) -> list[tuple[int, int]]:
    """(event, an event with it in its auth chain) for these events, at most `limit` for each."""
    async with db.cursor(binary=True) as cursor:
        await cursor.execute(
            """
            SELECT wanted.event, found.event
              FROM unnest(%s::int8[]) AS wanted (event)
             CROSS JOIN LATERAL (
                WITH RECURSIVE citing (event) AS (
                    SELECT event
                      FROM auth_edges
                     WHERE auth_event = wanted.event
                     UNION
                    SELECT edge.event
                      FROM citing
                     CROSS JOIN LATERAL (SELECT event
                                           FROM auth_edges
                                          WHERE auth_event = citing.event
                                         OFFSET 0) AS edge
                )
                SELECT event FROM citing LIMIT %s) AS found
            """,
            (list(events), limit),
        )
        return await cursor.fetchall()


def replace_auth_edges(
    connection: psycopg.Connection[Any], edges: Mapping[int, Collection[int]]
) -> None:
    """Replace the auth events of these events, for a command that repairs a database."""
    pairs = [(event, cited) for event, auth_events in edges.items() for cited in auth_events]
    with connection.transaction():
        connection.execute("DELETE FROM auth_edges WHERE event = ANY(%s)", (list(edges),))
        with connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO auth_edges (event, auth_event) VALUES (%s, %s) ON CONFLICT DO NOTHING",
                pairs,
            )

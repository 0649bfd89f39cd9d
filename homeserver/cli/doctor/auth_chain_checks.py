"""A check of the auth chains in the database against the events, and their repair.

State resolution follows auth events by their numbers (`homeserver/storage/rooms/auth_edges.py`).
This check compares these with the JSON of the events.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import psycopg

from homeserver.cli.doctor.findings import Finding, ok, problem
from homeserver.config.hints import homeserver_command
from homeserver.storage.rooms.auth_edges import replace_auth_edges
from homeserver.storage.rooms.event_json import unpack_json
from homeserver.streams.positions import MAX_POSITION

EXAMINED = 5_000  # newest state events that are checked, unless all are to be repaired
BATCH_SIZE = 1_000

_Edges = dict[int, set[int]]  # event -> its auth events


def check_auth_chains(
    connection: psycopg.Connection[Any], *, repair: bool, config: Path | None = None
) -> Finding:
    """Check that the auth chains of the newest state events are right.

    With `repair` those of all state events are checked and repaired.
    """
    examined, wrong, disordered = 0, 0, 0
    for events in _state_events(connection, None if repair else EXAMINED):
        expected, stored = _auth_events_in_json(connection, events), _stored(connection, events)
        differing = {event: cited for event, cited in expected.items() if cited != stored[event]}
        examined += len(events)
        wrong += len(differing)
        disordered += sum(max(cited, default=0) >= event for event, cited in expected.items())
        if repair:
            replace_auth_edges(connection, differing)
    if disordered:
        return problem(
            "auth chains",
            f"{disordered} state events have smaller numbers than their auth events",
            "restore a backup: no version of this server writes such data",
        )
    if wrong and not repair:
        again = homeserver_command("doctor", "--repair", config=config)
        return problem(
            "auth chains",
            f"wrong for {wrong} of {examined} state events",
            f"run `{again}`, and restart the server",
        )
    repaired = f"; {wrong} were wrong and were repaired" if wrong else ""
    return ok("auth chains", f"right for {examined} state events{repaired}")


def _state_events(
    connection: psycopg.Connection[Any], limit: int | None
) -> Iterator[Sequence[tuple[int, int, bytes]]]:
    """(event, room, stored JSON) of the newest state events, in batches."""
    before, left = MAX_POSITION, limit
    while left is None or left > 0:
        events = connection.execute(
            """
            SELECT event, room, json
              FROM events
             WHERE event < %s AND state_key IS NOT NULL
             ORDER BY event DESC
             LIMIT %s
            """,
            (before, BATCH_SIZE if left is None else min(BATCH_SIZE, left)),
        ).fetchall()
        if not events:
            return
        yield events
        before = events[-1][0]
        left = None if left is None else left - len(events)


def _auth_events_in_json(
    connection: psycopg.Connection[Any], events: Sequence[tuple[int, int, bytes]]
) -> _Edges:
    """The auth events according to the events' JSON, if they are in the same room."""
    cited = {
        (event, room): [
            # In room versions 1 and 2 the id comes with a hash.
            reference if isinstance(reference, str) else reference[0]
            for reference in msgspec.json.decode(unpack_json(json))["auth_events"]
        ]
        for event, room, json in events
    }
    rows = connection.execute(
        """
        SELECT room, event_id, event
          FROM events
         WHERE event_key(event_id) = ANY(event_keys(%(ids)s)) AND event_id = ANY(%(ids)s)
        """,
        {"ids": list({event_id for ids in cited.values() for event_id in ids})},
    )
    numbers = {(room, event_id): event for room, event_id, event in rows}
    return {
        event: {numbers[room, each] for each in ids if (room, each) in numbers}
        for (event, room), ids in cited.items()
    }


def _stored(
    connection: psycopg.Connection[Any], events: Sequence[tuple[int, int, bytes]]
) -> _Edges:
    edges: _Edges = {event: set() for event, _, _ in events}
    rows = connection.execute(
        "SELECT event, auth_event FROM auth_edges WHERE event = ANY(%s)", (list(edges),)
    )
    for event, auth_event in rows:
        edges[event].add(auth_event)
    return edges

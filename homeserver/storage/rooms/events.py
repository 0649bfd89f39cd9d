"""Events: the exact bytes that were signed, and their place in their room.

Owns the tables `events` and `current_states` (migrations/0004_rooms.sql, 0010_event_graph.sql,
0017_withheld_redactions.sql, 0020_transaction_paths.sql and 0023_event_numbers.sql). The former has
one row per event, the latter the root of a room's current state where it differs from the state
after the event at the same position: a room whose graph never forked has no row. If no timeline
event has the position, the row also has the forward extremities.

`json` has the stored form of `event_json.py`. An event id is looked up by its `event_key`, which is
what the index has, and compared then. Rooms, senders, types and state keys are numbers of `names`;
events have numbers of their own (`homeserver/streams/event_numbers.py`), which are no positions.
Positions above zero are those of the timeline that a sync returns; the position of a backfilled
event is its negated number. `stored_at` is the position at which an event was stored that is not in
that timeline; it is null for older ones, whose number is that position. `depth` is the topological
depth in the graph as this server knows it, whatever the event itself claims.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from homeserver.storage.database.batch import BatchStatement
from homeserver.storage.database.database import Connection
from homeserver.storage.rooms.event_json import pack_json, unpack_json

INSERT_EVENT = BatchStatement(
    "insert_event",
    """
    INSERT INTO events (event, room, position, depth, type, sender, state_key, event_id, json,
                        state_before, state_after, replaces, extremities, device_id, txn_id,
                        txn_path, rejected, soft_failed, stored_at)
    SELECT * FROM unnest(%s::int8[], %s::int4[], %s::int8[], %s::int8[], %s::int4[], %s::int4[],
                         %s::int4[], %s::text[], %s::bytea[], %s::bytea[], %s::bytea[], %s::int8[],
                         %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[],
                         %s::int8[])
    """,
    if_repeated="""
        ON CONFLICT (event) DO UPDATE
       SET event = refuse_taken_key('events', events.event::text)
     WHERE (events.room, events.event_id) <> (EXCLUDED.room, EXCLUDED.event_id)
    """,
    columns=(
        "int8", "int4", "int8", "int8", "int4", "int4", "int4", "text", "bytea", "bytea", "bytea",
        "int8", "text", "text", "text", "text", "text", "text", "int8",
    ),
    at_write={8: pack_json},
)  # fmt: skip

PLACE_EVENT = BatchStatement(
    "place_event",
    """
    UPDATE events
       SET position = placed.position, depth = placed.depth, state_before = placed.state_before,
           state_after = placed.state_after, replaces = placed.replaces,
           extremities = placed.extremities, rejected = placed.rejected,
           soft_failed = placed.soft_failed
      FROM unnest(%s::int8[], %s::int8[], %s::int8[], %s::bytea[], %s::bytea[], %s::int8[],
                  %s::text[], %s::text[], %s::text[])
        AS placed (event, position, depth, state_before, state_after, replaces, extremities,
                   rejected, soft_failed)
     WHERE events.event = placed.event
    """,
    columns=("int8", "int8", "int8", "bytea", "bytea", "int8", "text", "text", "text"),
    key=(0,),
    late=True,
)
"""An outlier found its place in the graph."""

UPDATE_CHECK_RESULT = BatchStatement(
    "issue_check_result",
    """
    UPDATE events
       SET state_before = checked.state_before, state_after = checked.state_after,
           replaces = checked.replaces, rejected = checked.rejected,
           soft_failed = checked.soft_failed
      FROM unnest(%s::int8[], %s::bytea[], %s::bytea[], %s::int8[], %s::text[], %s::text[])
        AS checked (event, state_before, state_after, replaces, rejected, soft_failed)
     WHERE events.event = checked.event
    """,
    columns=("int8", "bytea", "bytea", "int8", "text", "text"),
    key=(0,),
    late=True,
)

REMOVE_FROM_TIMELINE = BatchStatement(
    "withdraw_event",
    """
    UPDATE events
       SET position = NULL, stored_at = COALESCE(position, stored_at)
     WHERE event = ANY (SELECT * FROM unnest(%s::int8[]))
    """,
    columns=("int8",),
    late=True,
)

DELETE_CONTENT = BatchStatement(
    "delete_content",
    """
    UPDATE events SET json = purged.json
      FROM unnest(%s::int8[], %s::bytea[]) AS purged (event, json)
     WHERE events.event = purged.event
    """,
    columns=("int8", "bytea"),
    key=(0,),
    late=True,
    at_write={1: pack_json},
)
"""An event is purged: its JSON is that of its redacted form from now on."""

MARK_REDACTED = BatchStatement(
    "mark_redacted",
    """
    UPDATE events SET redacted_by = redaction.event
      FROM unnest(%s::int8[], %s::int8[]) AS redaction (target, event)
     WHERE events.event = redaction.target AND events.redacted_by IS NULL
    """,
    columns=("int8", "int8"),
    key=(0,),
    late=True,
)

INSERT_CURRENT_STATE = BatchStatement(
    "insert_current_state",
    """
    INSERT INTO current_states (room, position, root, extremities)
    SELECT * FROM unnest(%s::int4[], %s::int8[], %s::bytea[], %s::text[])
    """,
    # A correction in the same batch has changed it then, and does so again.
    if_repeated="""
        ON CONFLICT (room, position) DO UPDATE
       SET root = EXCLUDED.root, extremities = EXCLUDED.extremities
    """,
    columns=("int4", "int8", "bytea", "text"),
)


CORRECT_CURRENT_STATE = BatchStatement(
    "correct_current_state",
    """
    INSERT INTO current_states (room, position, root, extremities)
    SELECT * FROM unnest(%s::int4[], %s::int8[], %s::bytea[], %s::text[])
        ON CONFLICT (room, position) DO UPDATE
       SET root = EXCLUDED.root, extremities = EXCLUDED.extremities
    """,
    columns=("int4", "int8", "bytea", "text"),
    key=(0, 1),
    late=True,
)
"""The state of a position turned out to be another one. Comes before states are forgotten."""

FORGET_CURRENT_STATES = BatchStatement(
    "forget_current_states",
    """
    DELETE FROM current_states
     USING unnest(%s::int4[], %s::int8[], %s::int8[]) AS gone (room, since, before)
     WHERE current_states.room = gone.room AND position >= since AND position < before
    """,
    columns=("int4", "int8", "int8"),
    late=True,
)


class EventRow(NamedTuple):
    """One event as stored, with the event that it replaced and its redaction, for `unsigned`.

    `stored_at` is as in `StoredEvent`; where it is not stored, it is the position. `state_before`
    is `None` for an outlier. `rejected` and `soft_failed` name the broken rule.
    """

    event: int
    room: int
    position: int | None
    stored_at: int
    depth: int
    event_id: str
    json: bytes
    state_before: bytes | None
    state_after: bytes | None
    replaces: int | None
    replaced_id: str | None
    replaced_json: bytes | None
    redaction_id: str | None
    redaction_json: bytes | None
    device_id: str | None
    txn_id: str | None
    txn_path: str | None
    rejected: str | None
    soft_failed: str | None


async def events_by_number(db: Connection, events: Sequence[int]) -> list[EventRow]:
    """The events with these numbers, in no particular order."""
    async with db.cursor(binary=True) as cursor:
        await cursor.execute(
            """
            SELECT e.event, e.room, e.position,
                   COALESCE(e.stored_at, GREATEST(e.position, e.event)) AS stored_at,
                   e.depth, e.event_id, e.json, e.state_before, e.state_after, e.replaces,
                   old.event_id AS replaced_id, old.json AS replaced_json,
                   redaction.event_id AS redaction_id, redaction.json AS redaction_json,
                   e.device_id, e.txn_id, e.txn_path, e.rejected, e.soft_failed
              FROM events e
              LEFT JOIN events old ON old.event = e.replaces
              LEFT JOIN events redaction ON redaction.event = e.redacted_by
             WHERE e.event = ANY(%s)
            """,
            (list(events),),
        )
        return [_event_row(row) for row in await cursor.fetchall()]


_JSON = [place for place, name in enumerate(EventRow._fields) if name.endswith("json")]


def _event_row(row: Sequence[Any]) -> EventRow:
    """A row of the database, with the JSON itself in place of its stored form."""
    values = [*row]
    for place in _JSON:
        if values[place] is not None:
            values[place] = unpack_json(values[place])
    return EventRow._make(values)


async def bare_events(db: Connection, events: Sequence[int]) -> list[tuple[int, str, bytes, bool]]:
    """(event, event id, JSON, whether it was rejected) of these events, in no particular order."""
    async with db.cursor(binary=True) as cursor:
        await cursor.execute(
            """
            SELECT event, event_id, json, rejected IS NOT NULL
              FROM events
             WHERE event = ANY(%s::int8[])
            """,
            (list(events),),
        )
        return [
            (event, event_id, unpack_json(json), is_rejected)
            for event, event_id, json, is_rejected in await cursor.fetchall()
        ]


async def event_numbers(
    db: Connection, room: int, event_ids: Sequence[str]
) -> list[tuple[str, int]]:
    """(event id, number) of those of the events that a room has."""
    cursor = await db.execute(
        """
        SELECT event_id, event
          FROM events
         WHERE event_key(event_id) = ANY(event_keys(%(ids)s)) AND event_id = ANY(%(ids)s)
           AND room = %(room)s
        """,
        {"ids": list(event_ids), "room": room},
    )
    return await cursor.fetchall()


async def rooms_with_event(db: Connection, event_id: str) -> list[int]:
    """The rooms that have an event with this id."""
    cursor = await db.execute(
        """
        SELECT room FROM events
         WHERE event_key(event_id) = event_key(%(id)s) AND event_id = %(id)s
        """,
        {"id": event_id},
    )
    return [row[0] for row in await cursor.fetchall()]


async def events_between(
    db: Connection, room: int, after: int, upto: int, limit: int
) -> list[tuple[int, int]]:
    """(position, event) of timeline events with after < position <= upto, newest first."""
    cursor = await db.execute(
        """
        SELECT position, event
          FROM events
         WHERE room = %s AND position > %s AND position <= %s
         ORDER BY position DESC
         LIMIT %s
        """,
        (room, after, upto, limit),
    )
    return await cursor.fetchall()


class Stretch(NamedTuple):
    """A part of a room's timeline: the newest `limit` events with after < position <= upto."""

    room: int
    after: int
    upto: int
    limit: int


async def events_of_stretches(
    db: Connection, stretches: Sequence[Stretch]
) -> list[tuple[int, int, int]]:
    """(room, position, event) of the timeline events in stretches of several rooms, newest first.

    Each room has one stretch.
    """
    cursor = await db.execute(
        """
        SELECT stretch.room, newest.position, newest.event
          FROM unnest(%s::int4[], %s::int8[], %s::int8[], %s::int4[])
               AS stretch (room, after, upto, size)
         CROSS JOIN LATERAL (SELECT position, event
                               FROM events
                              WHERE events.room = stretch.room AND position > stretch.after
                                AND position <= stretch.upto
                              ORDER BY position DESC
                              LIMIT stretch.size) AS newest
         ORDER BY newest.position DESC
        """,
        [list(column) for column in zip(*stretches, strict=True)],
    )
    return await cursor.fetchall()


async def events_after(
    db: Connection, rooms: Sequence[int], after: int, upto: int, limit: int
) -> list[tuple[int, int, int]]:
    """(position, room, event) of the oldest timeline events with after < position <= upto."""
    cursor = await db.execute(
        """
        SELECT oldest.position, wanted.room, oldest.event
          FROM unnest(%s::int4[]) AS wanted (room)
         CROSS JOIN LATERAL (SELECT position, event
                               FROM events
                              WHERE events.room = wanted.room AND position > %s AND position <= %s
                              ORDER BY position
                              LIMIT %s) AS oldest
         ORDER BY oldest.position
         LIMIT %s
        """,
        (list(rooms), after, upto, limit, limit),
    )
    return await cursor.fetchall()


async def state_root_at(db: Connection, room: int, position: int) -> bytes | None:
    """Root of the room's current state at a position; `None` before its first event."""
    cursor = await db.execute(
        """
        SELECT root
          FROM (SELECT position, 0 AS rank, COALESCE(state_after, state_before) AS root
                  FROM (SELECT position, state_after, state_before
                          FROM events
                         WHERE room = %s AND position > 0 AND position <= %s
                         ORDER BY position DESC
                         LIMIT 1) AS newest
                 UNION ALL
                SELECT position, 1, root
                  FROM (SELECT position, root
                          FROM current_states
                         WHERE room = %s AND position <= %s
                         ORDER BY position DESC
                         LIMIT 1) AS resolved) AS roots
         ORDER BY position DESC, rank DESC
         LIMIT 1
        """,
        (room, position, room, position),
    )
    row = await cursor.fetchone()
    return row[0] if row else None


async def transactions_of_device(
    db: Connection, sender: int, device_id: str, limit: int
) -> list[tuple[int, int, str | None, str, str]]:
    """(room, type, path, transaction id, event id) of a device's transactions, newest first."""
    cursor = await db.execute(
        """
        SELECT room, type, txn_path, txn_id, event_id
          FROM events
         WHERE sender = %(sender)s AND hashtext(device_id) = hashtext(%(device_id)s)
           AND device_id = %(device_id)s AND txn_id IS NOT NULL
         ORDER BY event DESC
         LIMIT %(limit)s
        """,
        {"sender": sender, "device_id": device_id, "limit": limit},
    )
    return await cursor.fetchall()

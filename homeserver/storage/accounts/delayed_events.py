"""Delayed events: what users have scheduled, and what became of it.

Owns the table `delayed_events` (migrations/0039_delayed_events.sql). Times are ms since the epoch.
"""

from collections.abc import Sequence
from typing import NamedTuple

import msgspec
from psycopg.rows import class_row

from homeserver.storage.database.database import Connection

RETENTION_MS = 7 * 86_400_000
COLUMNS = """delay_id, user_id, scope, txn_key, room_id, type, state_key, content, appservice,
             event_ts, is_rate_limited, delay_ms, scheduled_ms, due_ms, finalised_ms, event_id,
             error, sticky_ms, sticky_name"""


class DelayedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One delayed event; the migration describes its fields. `content` and `error` are JSON."""

    delay_id: str
    user_id: str
    scope: str
    txn_key: bytes | None
    room_id: str
    type: str
    state_key: str | None
    content: bytes
    appservice: str | None
    event_ts: int | None
    is_rate_limited: bool
    delay_ms: int
    scheduled_ms: int
    due_ms: int | None
    finalised_ms: int | None = None
    event_id: str | None = None
    error: bytes | None = None
    sticky_ms: int | None = None
    sticky_name: str | None = None


class Totals(NamedTuple):
    """What a user has: numbers of events and bytes of their contents, and the next due time."""

    scheduled: int
    scheduled_size: int
    next_due_ms: int | None
    finalised: int
    finalised_size: int


async def insert_delayed_event(db: Connection, event: DelayedEvent) -> None:
    """Add an event that is scheduled."""
    await db.execute(
        """
        INSERT INTO delayed_events (delay_id, user_id, scope, txn_key, room_id, type, state_key,
                                    content, appservice, event_ts, is_rate_limited, delay_ms,
                                    scheduled_ms, due_ms, sticky_ms, sticky_name)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
        """,
        (
            event.delay_id,
            event.user_id,
            event.scope,
            event.txn_key,
            event.room_id,
            event.type,
            event.state_key,
            event.content,
            event.appservice,
            event.event_ts,
            event.is_rate_limited,
            event.delay_ms,
            event.scheduled_ms,
            event.due_ms,
            event.sticky_ms,
            event.sticky_name,
        ),
    )


async def find_delayed_event(db: Connection, delay_id: str) -> DelayedEvent | None:
    """One delayed event, scheduled or finalised."""
    async with db.cursor(row_factory=class_row(DelayedEvent)) as cursor:
        await cursor.execute(
            f"SELECT {COLUMNS} FROM delayed_events WHERE delay_id = %s", (delay_id,)
        )
        return await cursor.fetchone()


async def find_by_transaction(
    db: Connection, user_id: str, scope: str, txn_key: bytes
) -> str | None:
    """The id of the delayed event that a request has scheduled."""
    cursor = await db.execute(
        """
        SELECT delay_id FROM delayed_events WHERE user_id = %s AND scope = %s AND txn_key = %s
        """,
        (user_id, scope, txn_key),
    )
    row = await cursor.fetchone()
    return None if row is None else str(row[0])


async def totals_of(db: Connection, user_id: str) -> Totals:
    """How much a user has."""
    cursor = await db.execute(
        """
        SELECT count(*) FILTER (WHERE finalised_ms IS NULL),
               coalesce(sum(octet_length(content)) FILTER (WHERE finalised_ms IS NULL), 0)::int8,
               min(due_ms),
               count(finalised_ms),
               coalesce(sum(octet_length(content)) FILTER (WHERE finalised_ms > 0), 0)::int8
          FROM delayed_events
         WHERE user_id = %s
        """,
        (user_id,),
    )
    row = await cursor.fetchone()
    assert row is not None, "an aggregate has a row"
    return Totals(*row)


async def scheduled_events_of(db: Connection, user_id: str) -> list[DelayedEvent]:
    """The events that a user has scheduled, in the order of their times."""
    async with db.cursor(row_factory=class_row(DelayedEvent)) as cursor:
        await cursor.execute(
            f"""
            SELECT {COLUMNS} FROM delayed_events
             WHERE user_id = %s AND finalised_ms IS NULL
             ORDER BY scheduled_ms + delay_ms, delay_id
            """,
            (user_id,),
        )
        return await cursor.fetchall()


async def finalised_events_of(db: Connection, user_id: str, limit: int) -> list[DelayedEvent]:
    """The events of a user that were finalised last, newest first."""
    async with db.cursor(row_factory=class_row(DelayedEvent)) as cursor:
        await cursor.execute(
            f"""
            SELECT {COLUMNS} FROM delayed_events
             WHERE user_id = %s AND finalised_ms IS NOT NULL
             ORDER BY finalised_ms DESC, delay_id
             LIMIT %s
            """,
            (user_id, limit),
        )
        return await cursor.fetchall()


async def earliest_delayed_event(db: Connection) -> int | None:
    """The time at which the next delayed event is due."""
    cursor = await db.execute("SELECT min(due_ms) FROM delayed_events WHERE due_ms IS NOT NULL")
    row = await cursor.fetchone()
    return None if row is None else row[0]


async def due_delayed_events(db: Connection, now_ms: int, limit: int) -> list[tuple[str, str]]:
    """(user, delay id) of the first events that are due, in the order of their times.

    Those that were postponed together are in the order in which they were due at first.
    """
    cursor = await db.execute(
        """
        SELECT user_id, delay_id FROM delayed_events
         WHERE due_ms <= %s
         ORDER BY due_ms, scheduled_ms + delay_ms, delay_id
         LIMIT %s
        """,
        (now_ms, limit),
    )
    return await cursor.fetchall()


async def restart_delayed_event(
    db: Connection, delay_id: str, owner: str | None, now_ms: int
) -> int | None:
    """Let a scheduled event, of this owner if one is given, be due after its delay again.

    Returns when; `None` if there is no such event.
    """
    cursor = await db.execute(
        """
        UPDATE delayed_events SET scheduled_ms = %s, due_ms = %s + delay_ms
         WHERE delay_id = %s AND due_ms IS NOT NULL AND user_id = coalesce(%s, user_id)
        RETURNING due_ms
        """,
        (now_ms, now_ms, delay_id, owner),
    )
    row = await cursor.fetchone()
    return None if row is None else row[0]


async def postpone_delayed_events(
    db: Connection, delay_ids: Sequence[str], now_ms: int, due_ms: int
) -> None:
    """Let events that are due be due later, as far as they still are."""
    await db.execute(
        "UPDATE delayed_events SET due_ms = %s WHERE delay_id = ANY(%s) AND due_ms <= %s",
        (due_ms, list(delay_ids), now_ms),
    )


async def finalise_delayed_event(
    db: Connection, delay_id: str, now_ms: int, event_id: str | None, error: bytes | None
) -> None:
    """Record what became of a scheduled event."""
    await db.execute(
        """
        UPDATE delayed_events SET due_ms = NULL, finalised_ms = %s, event_id = %s, error = %s
         WHERE delay_id = %s AND finalised_ms IS NULL
        """,
        (now_ms, event_id, error, delay_id),
    )


async def delete_old_finalised_of(db: Connection, user_id: str, most: int, most_size: int) -> None:
    """Delete the oldest finalised events of a user, beyond a number and a sum of bytes."""
    await db.execute(
        """
        DELETE FROM delayed_events
         WHERE delay_id IN (
               SELECT delay_id
                 FROM (SELECT delay_id,
                              row_number() OVER newest AS place,
                              sum(octet_length(content)) OVER newest AS size
                         FROM delayed_events
                        WHERE user_id = %s AND finalised_ms IS NOT NULL
                       WINDOW newest AS (ORDER BY finalised_ms DESC, delay_id)) AS finalised
                WHERE place > %s OR size > %s)
        """,
        (user_id, most, most_size),
    )


async def delete_expired_delayed_events(db: Connection, now_ms: int) -> None:
    """Delete what was finalised a week ago."""
    before_ms = now_ms - RETENTION_MS
    await db.execute("DELETE FROM delayed_events WHERE finalised_ms < %s", (before_ms,))


async def delete_delayed_events_of(db: Connection, user_id: str) -> None:
    """Delete all delayed events of a user."""
    await db.execute("DELETE FROM delayed_events WHERE user_id = %s", (user_id,))

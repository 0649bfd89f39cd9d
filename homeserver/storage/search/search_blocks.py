"""The index of the server-side search: in blocks of events which words may be there.

Owns the tables `search_blocks` and `search_removals` (migrations/0045_search_blocks.sql, and an
index in 0046_search_times.sql). The index is derived from the events, and may be behind them:
whether an event says what was searched, and who may see it, is for the caller to check. Rooms and
senders are numbers of `names`.

A search reads the signatures of all blocks of the rooms. They have some 30 bytes for a message, so
that takes less time than to find a frequent word in an inverted index, and a new message costs next
to nothing.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import psycopg

from homeserver.storage.database.batch import BatchStatement
from homeserver.storage.database.database import Connection

TIMEOUT_MS = 1_000

INSERT_BLOCK = BatchStatement(
    "insert_search_block",
    """
    INSERT INTO search_blocks
           (room, first_event, last_event, first_at, last_at, signature, entries)
    SELECT * FROM unnest(%s::int4[], %s::int8[], %s::int8[], %s::int8[], %s::int8[], %s::bytea[],
                         %s::bytea[])
        AS new (room, first_event, last_event, first_at, last_at, signature, entries)
     WHERE EXISTS (SELECT FROM rooms WHERE rooms.room = new.room)
        ON CONFLICT (room, last_event) DO UPDATE
       SET first_event = EXCLUDED.first_event, first_at = EXCLUDED.first_at,
           last_at = EXCLUDED.last_at, signature = EXCLUDED.signature, entries = EXCLUDED.entries
    """,
    columns=("int4", "int8", "int8", "int8", "int8", "bytea", "bytea"),
    key=(0, 2),
)
"""A block is stored, unless the room is being deleted."""

DELETE_BLOCK = BatchStatement(
    "delete_search_block",
    """
    DELETE FROM search_blocks
     USING unnest(%s::int4[], %s::int8[]) AS old (room, last_event)
     WHERE search_blocks.room = old.room AND search_blocks.last_event = old.last_event
    """,
    columns=("int4", "int8"),
)
"""All entries of a block are in others now, or gone. The same batch does not insert it."""

INSERT_REMOVAL = BatchStatement(
    "insert_search_removal",
    """
    INSERT INTO search_removals (event)
    SELECT purged.event
      FROM unnest(%s::int8[]) AS purged (event)
     WHERE EXISTS (SELECT FROM search_blocks)
        ON CONFLICT (event) DO NOTHING
    """,
    columns=("int8",),
)
"""An event was purged, and has to leave the index."""

DELETE_REMOVAL = BatchStatement(
    "delete_search_removal",
    "DELETE FROM search_removals WHERE event = ANY (SELECT * FROM unnest(%s::int8[]))",
    columns=("int8",),
)

Place = tuple[int, int]  # (sent_at, event)


class TooSlow(Exception):
    """A statement of a search took longer than `TIMEOUT_MS`."""


class BlockKey(NamedTuple):
    """What identifies a block."""

    room: int
    last_event: int


class FoundBlock(msgspec.Struct, frozen=True):
    """A block that may have what is searched."""

    room: int
    last_event: int
    last_at: int

    @property
    def key(self) -> BlockKey:
        return BlockKey(self.room, self.last_event)


class IndexableEvent(NamedTuple):
    """An event that can be found now: numbers of its room and sender, whether it came in time.

    A backfilled or imported event did not. `size` is that of its JSON, in bytes.
    """

    event: int
    room: int
    sender: int
    is_live: bool
    size: int


class BlockQuery(msgspec.Struct, frozen=True, kw_only=True):
    """The wanted blocks: of `rooms`, with times in `since` to `before`, with bits of a signature.

    They are older than the block `after` in the order in which they are found.
    """

    rooms: Sequence[int]
    places: Sequence[int]
    since: int
    before: int
    after: FoundBlock | None = None


async def find_blocks(db: Connection, query: BlockQuery, limit: int) -> list[FoundBlock]:
    """The newest wanted blocks, `limit` at most. Raises `TooSlow`."""
    bits = " AND ".join(
        f"get_bit(signature, {place:d} %% (8 * octet_length(signature))) = 1"
        for place in query.places
    )
    after = query.after
    values = {
        "rooms": list(query.rooms),
        "since": query.since,
        "before": query.before,
        "after": None if after is None else [after.last_at, after.room, after.last_event],
        "limit": limit,
    }
    rows = await _in_time(
        db,
        f"""
        SELECT room, last_event, last_at
          FROM search_blocks
         WHERE room = ANY(%(rooms)s) AND last_at >= %(since)s AND first_at <= %(before)s
           AND (%(after)s::int8[] IS NULL
                OR ARRAY[last_at, room, last_event] < %(after)s::int8[])
           AND {bits}
         ORDER BY last_at DESC, room DESC, last_event DESC
         LIMIT %(limit)s
        """,
        values,
    )
    return [FoundBlock(*row) for row in rows]


async def nth_newest_time(db: Connection, query: BlockQuery, number: int) -> int | None:
    """The newest time in the block with this number, of those of `rooms` from `since` to `before`.

    They are numbered from 1, for the one that ends last. `None` if there are fewer. Raises
    `TooSlow`.
    """
    rows = await _in_time(
        db,
        """
        SELECT last_at
          FROM search_blocks
         WHERE room = ANY(%(rooms)s) AND last_at BETWEEN %(since)s AND %(before)s
         ORDER BY last_at DESC
        OFFSET %(offset)s LIMIT 1
        """,
        {
            "rooms": list(query.rooms),
            "since": query.since,
            "before": query.before,
            "offset": number - 1,
        },
    )
    return rows[0][0] if rows else None


async def _in_time(db: Connection, statement: str, values: dict[str, Any]) -> list[Any]:
    """The rows of a statement of a search. Raises `TooSlow`."""
    try:
        async with db.transaction():
            await db.execute(f"SET LOCAL statement_timeout = {TIMEOUT_MS}", prepare=False)
            cursor = await db.execute(statement, values, prepare=False)
            return await cursor.fetchall()
    except psycopg.errors.QueryCanceled:
        raise TooSlow from None


async def load_entries(db: Connection, blocks: Sequence[BlockKey]) -> list[tuple[BlockKey, bytes]]:
    """The entries of blocks; blocks that do not exist any more are left out."""
    cursor = await db.execute(
        """
        SELECT room, last_event, entries
          FROM search_blocks
          JOIN unnest(%s::int4[], %s::int8[]) AS wanted (room, last_event)
         USING (room, last_event)
        """,
        ([block.room for block in blocks], [block.last_event for block in blocks]),
        binary=True,
    )
    rows = await cursor.fetchall()
    return [(BlockKey(room, last_event), entries) for room, last_event, entries in rows]


async def blocks_around(db: Connection, events: Sequence[tuple[int, int]]) -> list[BlockKey]:
    """The blocks that may have entries of some of these (room, event)."""
    # The events of a room are compared with the blocks near them, and not with all of the room's.
    cursor = await db.execute(
        """
        WITH wanted AS MATERIALIZED
             (SELECT * FROM unnest(%s::int4[], %s::int8[]) AS wanted (room, event)),
             near AS MATERIALIZED
             (SELECT found.*
                FROM (SELECT room, min(event) AS first, max(event) AS last
                        FROM wanted
                       GROUP BY room) AS ends
               CROSS JOIN LATERAL
                     (SELECT room, first_event, last_event
                        FROM search_blocks
                       WHERE search_blocks.room = ends.room AND last_event >= ends.first
                         AND first_event <= ends.last
                      OFFSET 0) AS found)
        SELECT DISTINCT near.room, near.last_event
          FROM near
          JOIN wanted ON wanted.room = near.room AND wanted.event <= near.last_event
                     AND wanted.event >= near.first_event
        """,
        ([room for room, _ in events], [event for _, event in events]),
    )
    return [BlockKey(*row) for row in await cursor.fetchall()]


async def indexable_events(db: Connection, events: Sequence[int]) -> list[IndexableEvent]:
    """Those of the events that were not redacted, nor removed from the timeline or purged.

    A purge makes the JSON smaller.
    """
    cursor = await db.execute(
        """
        SELECT event, room, sender, position > 0, event_json_size(json)
          FROM events
         WHERE event = ANY(%s) AND redacted_by IS NULL AND position IS NOT NULL
        """,
        (list(events),),
        binary=True,
    )
    return [IndexableEvent(*row) for row in await cursor.fetchall()]


async def rooms_of(db: Connection, events: Sequence[int]) -> list[tuple[int, int]]:
    """(room, event) of those of the events that are stored."""
    cursor = await db.execute(
        "SELECT room, event FROM events WHERE event = ANY(%s)", (list(events),)
    )
    return await cursor.fetchall()


async def pending_removals(db: Connection, limit: int) -> list[int]:
    """Events that were purged, and have not left the index yet."""
    cursor = await db.execute("SELECT event FROM search_removals LIMIT %s", (limit,))
    return [row[0] for row in await cursor.fetchall()]

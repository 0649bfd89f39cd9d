"""The index of the server-side search: which events have which words.

Owns the table `search_entries` (migrations/0038_search.sql), with one row for each event that can
be found. It is derived from the events, and may be behind them: whether an event still says what
was found, and who may see it, is for the caller to check. Rooms and senders are numbers of `names`.
They are those of the event's row: an event that is gone enters the index no more.

A search goes back in time, window by window, until it has found enough: so a word that is in every
third message costs little more than a rare one. PostgreSQL combines two indexes for it, over the
words, and over rooms and time, or uses the one that leaves less to read.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import psycopg
from psycopg.rows import class_row

from homeserver.storage.database.batch import BatchStatement
from homeserver.storage.database.database import Connection

FIRST_WINDOW = (12 * 3_600_000_000) << 10  # of `sent_at`: twelve hours
MAX_GROWTH = 4  # of a window, compared with the one before
MAX_WINDOWS = 6  # before all that is older
MAX_PLACES = 16  # of one token
TIMEOUT_MS = 1_000

INSERT_ENTRY = BatchStatement(
    "insert_search_entry",
    """
    INSERT INTO search_entries (event, room, sender, key, has_url, sent_at, words)
    SELECT events.event, events.room, events.sender, new.key, new.has_url, new.sent_at,
           new.words::tsvector
      FROM unnest(%s::int8[], %s::int4[], %s::bool[], %s::int8[], %s::text[], %s::int8[])
        AS new (event, key, has_url, sent_at, words, size)
      JOIN events ON events.event = new.event
     WHERE events.redacted_by IS NULL AND events.position IS NOT NULL
       AND event_json_size(events.json) = new.size
        ON CONFLICT (event) DO UPDATE
       SET sent_at = EXCLUDED.sent_at, words = EXCLUDED.words
     WHERE (search_entries.sent_at, search_entries.words)
           IS DISTINCT FROM (EXCLUDED.sent_at, EXCLUDED.words)
    """,
    columns=("int8", "int4", "bool", "int8", "text", "int8"),
    key=(0,),
)
"""An event can be found, unless it was redacted, purged or removed meanwhile.

A purge makes the JSON smaller than the one that the words are of.
"""

DELETE_ENTRY = BatchStatement(
    "delete_search_entry",
    "DELETE FROM search_entries WHERE event = ANY (SELECT * FROM unnest(%s::int8[]))",
    columns=("int8",),
)
"""An event was redacted or purged. The same batch inserts no row for it."""

Place = tuple[int, int]  # (sent_at, event)


@dataclass(frozen=True, slots=True)
class SearchEntry:
    """An event that has the words that are searched."""

    event: int
    room: int
    sent_at: int
    rank: float

    @property
    def place(self) -> Place:
        """Its place in the order of time."""
        return self.sent_at, self.event


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryQuery:
    """The wanted entries: those with all `words`, in `rooms`, before a place in time.

    `words` are tokens, and whether each is only the beginning of a token. Entries of events with
    numbers above `newest` are left out: they came after the search began. `senders` is `None` for
    all but `not_senders`; messages of `ignored` users are left out.
    """

    words: Sequence[tuple[str, bool]]
    rooms: Sequence[int]
    keys: Sequence[int]
    newest: int
    before: Place
    since: Place
    senders: Sequence[int] | None = None
    not_senders: Sequence[int] = ()
    ignored: Sequence[int] = ()
    has_url: bool | None = None


@dataclass(frozen=True, slots=True)
class FoundEntries:
    """The newest entries, newest first; `is_all` says that there are no older ones."""

    entries: Sequence[SearchEntry]
    is_all: bool


def words_vector(tokens: Sequence[str]) -> str:
    """The words of a row: tokens of letters, digits and marks, in the order of the text.

    Those that come several times have some of their places, by which they rank higher.
    """
    single = dict.fromkeys(tokens)
    if len(single) == len(tokens):
        return "'" + "' '".join(single) + "'" if single else ""
    places: dict[str, list[str]] = {}
    for place, token in enumerate(tokens, 1):
        places.setdefault(token, []).append(str(place))
    return " ".join(
        [
            f"'{token}'" if len(found) == 1 else f"'{token}':{','.join(found[:MAX_PLACES])}"
            for token, found in places.items()
        ]
    )


async def newest_entry(db: Connection) -> int:
    """The greatest number of an event that can be found."""
    cursor = await db.execute("SELECT COALESCE(max(event), 0) FROM search_entries")
    row = await cursor.fetchone()
    assert row is not None, "an aggregate has a row"
    return int(row[0])


async def find_entries(db: Connection, query: EntryQuery, limit: int) -> FoundEntries:
    """The newest entries that are wanted, `limit` at most.

    What cannot be found within `TIMEOUT_MS` is left out, as if it did not exist.
    """
    found: list[SearchEntry] = []
    try:
        async with db.transaction():
            # Whatever the statistics say, the indexes are to be used. The rows of some hours lie
            # together, so reading them costs less than all places of a frequent word.
            await db.execute(
                f"SET LOCAL statement_timeout = {TIMEOUT_MS}; SET LOCAL enable_seqscan = off;"
                " SET LOCAL random_page_cost = 1.1",
                prepare=False,
            )
            await _add_entries(db, query, limit + 1, found)
    except psycopg.errors.QueryCanceled:
        return FoundEntries(found[:limit], is_all=True)
    return FoundEntries(found[:limit], is_all=len(found) <= limit)


async def _add_entries(
    db: Connection, query: EntryQuery, wanted: int, found: list[SearchEntry]
) -> None:
    """Search one window after the other; each is as large as the wanted entries seem to need."""
    newest = await _newest_in(db, query)
    if newest is None:
        return
    end, size = newest + 1, FIRST_WINDOW
    for _ in range(MAX_WINDOWS):
        start = end - size
        if start <= query.since[0]:
            break
        new = await _find_in(db, query, start, end, wanted - len(found))
        found += new
        if len(found) >= wanted:
            return
        end = start
        growth = 2 * (wanted - len(found)) // len(new) if new else MAX_GROWTH
        size *= max(1, min(growth, MAX_GROWTH))
    found += await _find_in(db, query, query.since[0], end, wanted - len(found))


async def _newest_in(db: Connection, query: EntryQuery) -> int | None:
    """The greatest `sent_at` of the rooms before the place, whatever words an entry has."""
    cursor = await db.execute(
        """
        SELECT max(newest.sent_at)
          FROM unnest(%s::int4[]) AS wanted (room)
         CROSS JOIN LATERAL (SELECT sent_at
                               FROM search_entries
                              WHERE search_entries.room = wanted.room AND sent_at <= %s
                              ORDER BY sent_at DESC
                              LIMIT 1) AS newest
        """,
        (list(query.rooms), query.before[0]),
    )
    row = await cursor.fetchone()
    return row[0] if row else None


async def _find_in(
    db: Connection, query: EntryQuery, start: int, end: int, limit: int
) -> list[SearchEntry]:
    """The newest wanted entries with start <= sent_at < end."""
    words = [f"'{token}'{':*' if is_prefix else ''}" for token, is_prefix in query.words]
    async with db.cursor(row_factory=class_row(SearchEntry)) as cursor:
        await cursor.execute(
            """
            SELECT event, room, sent_at, ts_rank(words, %(ranked)s::tsquery, 1) AS rank
              FROM (SELECT event, room, sent_at, words
                      FROM search_entries
                     WHERE words @@ %(words)s::tsquery AND room = ANY(%(rooms)s)
                       AND sent_at >= %(start)s AND sent_at < %(end)s
                       AND (sent_at, event) < (%(before_at)s, %(before)s)
                       AND (sent_at, event) >= (%(since_at)s, %(since)s)
                       AND event + 0 <= %(newest)s AND key = ANY(%(keys)s)
                       AND (%(senders)s::int4[] IS NULL OR sender = ANY(%(senders)s::int4[]))
                       AND NOT sender = ANY(%(not_senders)s::int4[])
                       AND NOT (key = 0 AND sender = ANY(%(ignored)s::int4[]))
                       AND (%(has_url)s::bool IS NULL OR has_url = %(has_url)s)
                     ORDER BY sent_at DESC, event DESC
                     LIMIT %(limit)s) AS found
            """,
            {
                "words": " & ".join(words),
                "ranked": " | ".join(words),
                "rooms": list(query.rooms),
                "start": start,
                "end": end,
                "before_at": query.before[0],
                "before": query.before[1],
                "since_at": query.since[0],
                "since": query.since[1],
                "newest": query.newest,
                "keys": list(query.keys),
                "senders": None if query.senders is None else list(query.senders),
                "not_senders": list(query.not_senders),
                "ignored": list(query.ignored),
                "has_url": query.has_url,
                "limit": limit,
            },
            prepare=False,
        )
        return await cursor.fetchall()

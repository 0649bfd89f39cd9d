"""Finds candidates of a search in the index: events that seem to have all words.

Candidates are found from the newest back. The blocks come in the order of their newest entries, so
an entry counts once all blocks with newer ones have been read.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from homeserver.protocol.search.searchable import SearchKey
from homeserver.protocol.search.signatures import signature_places, unpack_numbers
from homeserver.search.index_entries import IndexEntry, unpack_entries
from homeserver.search.indexing import Indexing
from homeserver.storage.database.database import Database
from homeserver.storage.rooms.names import Names
from homeserver.storage.search.search_blocks import (
    BlockQuery,
    FoundBlock,
    Place,
    find_blocks,
    load_entries,
)

PAGE_BLOCKS = 1_000  # that are found by one statement
MAX_PLACES = 64  # bits of a signature that are looked at
MAX_PAGES = 5  # with too few candidates
READ_BLOCKS = 20  # whose entries are read together


@dataclass(frozen=True, slots=True)
class SearchEntry:
    """An event that seems to have the words that are searched; `rank` is 0 until it is read."""

    event: int
    room: int
    sent_at: int
    rank: float = 0.0

    @property
    def place(self) -> Place:
        """Its place in the order of time."""
        return self.sent_at, self.event


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryQuery:
    """The wanted entries: those with all `numbers`, in `rooms`, before a place in time.

    Entries of events with nids above `newest` are left out: they came after the search began.
    `senders` is `None` for all but `not_senders`; messages of `ignored` users are left out.
    """

    numbers: Collection[int]
    rooms: Collection[int]
    keys: Collection[int]
    newest: int
    before: Place
    since: Place
    senders: Collection[int] | None = None
    not_senders: Collection[int] = ()
    ignored: Collection[int] = ()
    has_url: bool | None = None


@dataclass(frozen=True, slots=True)
class FoundEntries:
    """The newest entries, newest first; `is_all` says that there are no older ones."""

    entries: Sequence[SearchEntry]
    is_all: bool


class IndexSearch:
    """Searches the stored index, and what is not written yet."""

    def __init__(self, db: Database, names: Names, indexing: Indexing) -> None:
        self._db = db
        self._names = names
        self._indexing = indexing

    async def find(self, query: EntryQuery, limit: int) -> FoundEntries:
        """The newest entries that are wanted, `limit` at most.

        What takes too long to find is left out, as if it did not exist.
        """
        # First what is not written: it may be written meanwhile, and is found twice then.
        found = await self._in_memory(query)
        wanted = BlockQuery(
            rooms=list(query.rooms),
            places=list(islice(signature_places(query.numbers), MAX_PLACES)),
            since=query.since[0],
            before=query.before[0],
        )
        for _ in range(MAX_PAGES):
            blocks = await self._db.run(find_blocks, wanted, PAGE_BLOCKS)
            is_last = len(blocks) < PAGE_BLOCKS
            for start in range(0, len(blocks), READ_BLOCKS):
                end = start + READ_BLOCKS
                await self._add(query, blocks[start:end], found)
                if end < len(blocks) or not is_last:
                    # All others are in later blocks, none of which has newer entries than this.
                    newest = _newest(found.values(), blocks[min(end, len(blocks) - 1)].last_at)
                    if len(newest) >= limit:
                        return FoundEntries(newest[:limit], is_all=False)
            if is_last:
                break
            wanted = replace(wanted, after=blocks[-1])
        newest = _newest(found.values())
        return FoundEntries(newest[:limit], is_all=len(newest) <= limit)

    async def _in_memory(self, query: EntryQuery) -> dict[int, SearchEntry]:
        """The entries that are not written, by their events."""
        rooms = frozenset(query.rooms)
        items = [
            item
            for item in self._indexing.unwritten()
            if item.room_nid in rooms and _has_numbers(query, item.numbers)
        ]
        senders = await self._names.find_nids({item.sender for item in items})
        return {
            item.event_nid: SearchEntry(item.event_nid, item.room_nid, item.sent_at)
            for item in items
            if item.sender in senders and _is_wanted(query, item.entry(senders[item.sender]))
        }

    async def _add(
        self, query: EntryQuery, blocks: Sequence[FoundBlock], found: dict[int, SearchEntry]
    ) -> None:
        stored = await self._db.run(load_entries, [block.key for block in blocks])
        for key, packed in stored:
            for entry in unpack_entries(packed):
                if _is_wanted(query, entry):
                    found[entry.event] = SearchEntry(entry.event, key.room, entry.sent_at)


def _newest(entries: Collection[SearchEntry], after: int | None = None) -> list[SearchEntry]:
    """The entries in their order, newest first; only those with sent_at > `after`."""
    counting = [each for each in entries if after is None or each.sent_at > after]
    return sorted(counting, key=lambda entry: entry.place, reverse=True)


def _has_numbers(query: EntryQuery, packed: bytes) -> bool:
    numbers = unpack_numbers(packed)
    return all(number in numbers for number in query.numbers)


def _is_wanted(query: EntryQuery, entry: IndexEntry) -> bool:
    return (
        query.since <= entry.place < query.before
        and entry.event <= query.newest
        and entry.key in query.keys
        and query.has_url in (None, entry.has_url)
        and (query.senders is None or entry.sender in query.senders)
        and entry.sender not in query.not_senders
        and not (entry.key == SearchKey.BODY and entry.sender in query.ignored)
        and _has_numbers(query, entry.numbers)
    )

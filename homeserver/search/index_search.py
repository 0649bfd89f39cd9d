"""Finds candidates of a search in the index: events that seem to have all words.

Candidates are found from the newest back. The blocks come in the order of their newest entries, so
an entry counts once all blocks with newer ones have been read.
"""

from collections.abc import Collection, Sequence
from contextlib import suppress
from itertools import count, islice

import msgspec
from msgspec.structs import replace

from homeserver.concurrency.clock import Clock
from homeserver.concurrency.cooperative import TimeSlice
from homeserver.protocol.search.searchable import SearchKey
from homeserver.protocol.search.signatures import signature_places, unpack_numbers
from homeserver.search.index_entries import IndexEntry, unpack_entries
from homeserver.search.indexing import Indexing
from homeserver.search.scan_width import ScanWidth
from homeserver.storage.database.database import Database
from homeserver.storage.rooms.names import Names
from homeserver.storage.search.search_blocks import (
    BlockQuery,
    FoundBlock,
    Place,
    TooSlow,
    find_blocks,
    load_entries,
    nth_newest_time,
)

PAGE_BLOCKS = 1_000  # that are found by one statement
MAX_PLACES = 64  # bits of a signature that are looked at
MAX_PAGES = 5  # in one call, if some are done then
READ_BLOCKS = 20  # whose entries are read together
MAX_FOUND = 2_000  # entries beside the newest ones
FEW_NUMBERS = 200  # of a text, which are compared one by one


class SearchEntry(msgspec.Struct, frozen=True):
    """An event that seems to have the words that are searched; `rank` is 0 until it is read."""

    event: int
    room: int
    sent_at: int
    rank: float = 0.0

    @property
    def place(self) -> Place:
        """Its place in the order of time."""
        return self.sent_at, self.event


class EntryQuery(msgspec.Struct, frozen=True, kw_only=True):
    """The wanted entries: those with all `numbers`, in `rooms`, before a place in time.

    Entries of events with nids above `newest` are left out: they came after the search began.
    `senders` is `None` for all but `not_senders`; messages of `ignored` users are left out.
    """

    numbers: frozenset[int]
    rooms: Collection[int]
    keys: Collection[int]
    newest: int
    before: Place
    since: Place
    senders: Collection[int] | None = None
    not_senders: Collection[int] = ()
    ignored: Collection[int] = ()
    has_url: bool | None = None


class FoundEntries(msgspec.Struct, frozen=True):
    """The newest entries, newest first. Further ones are before the place `until`.

    It is `None` if there are none.
    """

    entries: Sequence[SearchEntry]
    until: Place | None


class IndexSearch:
    """Searches the stored index, and what is not written yet."""

    def __init__(self, db: Database, names: Names, indexing: Indexing, clock: Clock) -> None:
        self._db = db
        self._names = names
        self._indexing = indexing
        self._clock = clock
        self._width = ScanWidth()

    async def find(self, query: EntryQuery, limit: int) -> FoundEntries:
        """The newest entries that are wanted, `limit` at most.

        There may be fewer, and even none, with others before `until`: those are for another call.
        Raises `Unavailable` if the database is too slow.
        """
        # First what is not written: it may be written meanwhile, and is found twice then.
        found = await self._in_memory(query)
        until = await self._scan(query, found, limit)
        while until is not None and until >= query.before:
            self._width.was_too_much()
            until = await self._scan(query, found, limit)
        self._width.was_in_time()
        newest = _newest(found.values(), until)
        if len(newest) > limit:
            return FoundEntries(newest[:limit], newest[limit - 1].place)
        return FoundEntries(newest, until)

    async def _scan(
        self, query: EntryQuery, found: dict[int, SearchEntry], limit: int
    ) -> Place | None:
        """Add stored entries, until there are enough of the newest ones, or time is up.

        Returns the place from which on there are no others; `None` if that is all.
        """
        until = query.before
        with suppress(TooSlow):
            wanted = await self._part(query)
            for page in count(1):
                blocks = await self._db.run(find_blocks, wanted, PAGE_BLOCKS)
                is_last = len(blocks) < PAGE_BLOCKS
                for start in range(0, len(blocks), READ_BLOCKS):
                    end = start + READ_BLOCKS
                    await self._add(query, blocks[start:end], found)
                    _drop_oldest(found, limit)
                    if end < len(blocks) or not is_last:
                        # All others are in later blocks, none of which has newer entries than this.
                        until = blocks[min(end, len(blocks) - 1)].last_at + 1, 0
                        if len(_newest(found.values(), until)) >= limit:
                            return until
                if is_last:
                    return (wanted.since, 0) if wanted.since > query.since[0] else None
                if page >= MAX_PAGES and until < query.before:
                    return until
                wanted = replace(wanted, after=blocks[-1])
        return until

    async def _part(self, query: EntryQuery) -> BlockQuery:
        """The blocks that are looked at: all of them, or the newest ones of too many."""
        wanted = BlockQuery(
            rooms=list(query.rooms),
            places=list(islice(signature_places(query.numbers), MAX_PLACES)),
            since=query.since[0],
            before=query.before[0],
        )
        if self._width.blocks is None:
            return wanted
        # Without those that end where the entries end, if no entry of that time is wanted.
        ending = replace(wanted, before=wanted.before - (query.before[1] <= 0))
        start = await self._db.run(nth_newest_time, ending, self._width.blocks)
        return wanted if start is None else replace(wanted, since=start)

    async def _in_memory(self, query: EntryQuery) -> dict[int, SearchEntry]:
        """The entries that are not written, by their events."""
        rooms = frozenset(query.rooms)
        time_slice = TimeSlice(self._clock)
        items = []
        for item in list(self._indexing.unwritten()):
            if item.room_nid in rooms and _has_numbers(query, item.numbers):
                items.append(item)
            if time_slice.is_over:
                await time_slice.next()
        senders = await self._names.find_nids({item.sender for item in items})
        return {
            item.event_nid: SearchEntry(item.event_nid, item.room_nid, item.sent_at)
            for item in items
            if item.sender in senders and _is_wanted(query, item.entry(senders[item.sender]))
        }

    async def _add(
        self, query: EntryQuery, blocks: Sequence[FoundBlock], found: dict[int, SearchEntry]
    ) -> None:
        """Add the wanted entries of blocks."""
        stored = await self._db.run(load_entries, [block.key for block in blocks])
        time_slice = TimeSlice(self._clock)
        for key, packed in stored:
            for entry in unpack_entries(packed):
                if _is_wanted(query, entry) and _has_numbers(query, entry.numbers):
                    found[entry.event] = SearchEntry(entry.event, key.room, entry.sent_at)
            if time_slice.is_over:
                await time_slice.next()


def _newest(entries: Collection[SearchEntry], until: Place | None) -> list[SearchEntry]:
    """The entries from a place on, newest first."""
    counting = [each for each in entries if until is None or each.place >= until]
    return sorted(counting, key=lambda entry: entry.place, reverse=True)


def _drop_oldest(found: dict[int, SearchEntry], limit: int) -> None:
    """Drop entries that cannot be among the newest `limit`, nor say that there are more."""
    if len(found) > MAX_FOUND + limit:
        for entry in _newest(found.values(), None)[limit + 1 :]:
            del found[entry.event]


def _has_numbers(query: EntryQuery, packed: bytes) -> bool:
    numbers = unpack_numbers(packed)
    if len(numbers) > FEW_NUMBERS:
        return query.numbers.issubset(numbers)
    return all(number in numbers for number in query.numbers)


def _is_wanted(query: EntryQuery, entry: IndexEntry) -> bool:
    """Whether an entry is wanted, apart from its numbers."""
    return (
        query.since <= entry.place < query.before
        and entry.event <= query.newest
        and entry.key in query.keys
        and query.has_url in (None, entry.has_url)
        and (query.senders is None or entry.sender in query.senders)
        and entry.sender not in query.not_senders
        and not (entry.key == SearchKey.BODY and entry.sender in query.ignored)
    )

"""Writes the search index: many entries at a time, and never in the way of a message.

What the index has of the events around is read first, so that to write an event again changes
nothing: its former entry is replaced. The reader and the background job write through one object,
one batch after the other, and only what the database still has at that time. So the entry of an
event is never written after its redaction was handled, which it would otherwise outlive.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from twisted.internet.defer import DeferredLock
from twisted.logger import Logger

from homeserver.concurrency.backoff import RetrySchedule
from homeserver.concurrency.clock import Clock
from homeserver.concurrency.cooperative import build_cooperatively
from homeserver.concurrency.retry_pauses import RetryPauses
from homeserver.protocol.errors import Unavailable
from homeserver.search.index_entries import IndexBlock, IndexEntry, blocks_of, unpack_entries
from homeserver.search.indexed_events import IndexedEvent, IndexItem
from homeserver.storage.database.batch import Batch
from homeserver.storage.database.database import Database, DatabaseError, DatabaseUnavailable
from homeserver.storage.search import search_blocks as storage
from homeserver.storage.search.search_blocks import DELETE_BLOCK, DELETE_REMOVAL, BlockKey

RETRIES = RetrySchedule((0.1, 0.5, 1.0, 2.0, 5.0))
MAX_REMOVALS = 1_000  # purged events that one batch removes
log = Logger()

Groups = dict[tuple[int, bool], list[IndexEntry]]
"""New entries of rooms: those that came in time, and those of their history before."""


class IndexWriter:
    """Writes batches of items, one after the other."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._lock = DeferredLock()
        self._pauses = RetryPauses(clock, RETRIES)

    async def write(self, items: Sequence[IndexItem]) -> None:
        """Write items, and remove purged events, however long that takes. Raises `Stopped`."""
        await self._lock.acquire()
        try:
            failures = 0
            while True:
                self._pauses.check()
                try:
                    await self._write(items)
                    return
                except (Unavailable, DatabaseUnavailable) as error:
                    if failures == 0:
                        log.warn("the search index waits: {error}", error=error)
                except DatabaseError:
                    log.failure("the search index could not be written, and is tried again")
                failures += 1
                await self._pauses.wait(failures)
        finally:
            self._lock.release()

    def stop(self) -> None:
        """End all attempts."""
        self._pauses.stop()

    async def _write(self, items: Sequence[IndexItem]) -> None:
        """Write the items, and remove what was purged."""
        new = {item.event_nid: item for item in items if isinstance(item, IndexedEvent)}
        gone = {item.event_nid for item in items} - new.keys()
        gone.update(await self._db.run(storage.pending_removals, MAX_REMOVALS))
        found = await self._db.run(storage.indexable_events, list(new)) if new else []
        groups: Groups = defaultdict(list)
        places = await self._db.run(storage.rooms_of, list(gone)) if gone else []
        for event in sorted(found):
            item = new[event.event]
            if item.size == event.size:
                groups[event.room, event.is_live].append(item.entry(event.sender))
                places.append((event.room, event.event))
        replaced = await self._blocks_with(places)
        batch = Batch()
        made = _new_blocks(groups, replaced, {event for _, event in places})
        blocks = await build_cooperatively(self._clock, made)
        for block in blocks:
            batch.add(block.row)
        for key in replaced.keys() - {block.key for block in blocks}:
            batch.add(DELETE_BLOCK.row(*key))
        for event_nid in gone:
            batch.add(DELETE_REMOVAL.row(event_nid))
        if batch:
            await self._db.run(batch.write)

    async def _blocks_with(
        self, places: Sequence[tuple[int, int]]
    ) -> dict[BlockKey, list[IndexEntry]]:
        """The blocks that have entries of some of these (room, event)."""
        events = {event for _, event in places}
        keys = await self._db.run(storage.blocks_around, places) if places else []
        stored = await self._db.run(storage.load_entries, keys) if keys else []
        blocks = {key: list(unpack_entries(packed)) for key, packed in stored}
        return {
            key: entries
            for key, entries in blocks.items()
            if any(entry.event in events for entry in entries)
        }


def _new_blocks(
    groups: Groups, replaced: dict[BlockKey, list[IndexEntry]], written: set[int]
) -> Iterator[IndexBlock]:
    """Blocks of the new entries, and of what remains of those that are replaced."""
    for (room, _), entries in groups.items():
        yield from blocks_of(room, entries)
    for key, entries in replaced.items():
        yield from blocks_of(key.room, [each for each in entries if each.event not in written])

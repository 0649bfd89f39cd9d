"""Writes the search index: many entries at a time, and never in the way of a message.

What the index has of the events around is read first, so that to write an event again changes
nothing: its former entry is replaced. The reader and the background job write through one object,
one batch after the other, and only what the database still has at that time. So the entry of an
event is never written after its redaction was handled, which it would otherwise outlive.
"""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

from twisted.internet.defer import CancelledError, DeferredLock
from twisted.logger import Logger

from homeserver.concurrency.backoff import RetrySchedule
from homeserver.concurrency.clock import Clock
from homeserver.concurrency.cooperative import TimeSlice, build_cooperatively
from homeserver.concurrency.retry_pauses import RetryPauses, Stopped
from homeserver.protocol.errors import Unavailable
from homeserver.search.index_entries import IndexBlock, IndexEntry, blocks_of, unpack_entries
from homeserver.search.indexed_events import IndexedEvent, IndexItem, RemovedEvent
from homeserver.storage.database.batch import Batch
from homeserver.storage.database.database import Database, DatabaseError
from homeserver.storage.search import search_blocks as storage
from homeserver.storage.search.search_blocks import DELETE_BLOCK, DELETE_REMOVAL, BlockKey

RETRIES = RetrySchedule((0.1, 0.5, 1.0, 2.0, 5.0))
ATTEMPTS = 3  # at all items together, where the database refuses them
MAX_FAILURES = 100  # of one batch: then the parts that fail are not divided any more
MAX_REMOVALS = 1_000  # purged events that one batch removes
READ_EVENTS = 400  # of which is read together what the database has
READ_BLOCKS = 50  # whose entries are read together
log = Logger()

T = TypeVar("T")
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
        """Write items, and remove purged events, as soon as the database is available.

        An item that can never be written is left out: it must not keep all others out of the index.
        Raises `Stopped`.
        """
        await self._lock.acquire()
        try:
            await self._write_parts(items)
            await self._write_parts(await self._purged())
        finally:
            self._lock.release()

    def stop(self) -> None:
        """End all attempts."""
        self._pauses.stop()

    async def _purged(self) -> list[RemovedEvent]:
        """Events that were purged, and may be in the index; those that fail come again later."""
        try:
            events = await self._when_available(
                partial(self._db.run, storage.pending_removals, MAX_REMOVALS)
            )
        except DatabaseError:
            log.failure("the events that are to leave the search index could not be read")
            return []
        return [RemovedEvent(0, event) for event in events]

    async def _write_parts(self, items: Sequence[IndexItem]) -> None:
        """Write items together, or in ever smaller parts where some of them cannot be written."""
        failures = 0
        parts = [items] if items else []
        while parts:
            part = parts.pop()
            try:
                await self._when_available(partial(self._write, part))
            except (Stopped, CancelledError):
                raise
            except Exception:
                failures += 1
                if failures < ATTEMPTS:
                    await self._pauses.wait(failures)
                    parts.append(part)
                elif len(part) > 1 and failures < MAX_FAILURES:
                    middle = len(part) // 2
                    parts += part[middle:], part[:middle]
                else:
                    log.failure(
                        "{count} events are left out of the search index, the first of them {item}",
                        count=len(part),
                        item=part[0].event_nid,
                    )

    async def _when_available(self, action: Callable[[], Awaitable[T]]) -> T:
        """Do something as soon as the database is available, however long that takes."""
        failures = 0
        while True:
            self._pauses.check()
            try:
                return await action()
            except Unavailable as error:
                if failures == 0:
                    log.warn("the search index waits: {error}", error=error)
            failures += 1
            await self._pauses.wait(failures)

    async def _write(self, items: Sequence[IndexItem]) -> None:
        """Write the items that can still be found, and remove what there is of the others."""
        new = {item.event_nid: item for item in items if isinstance(item, IndexedEvent)}
        gone = {item.event_nid for item in items}
        groups: Groups = defaultdict(list)
        written = []
        wanted = sorted(new)
        for start in range(0, len(wanted), READ_EVENTS):
            page = wanted[start : start + READ_EVENTS]
            for event in sorted(await self._db.run(storage.indexable_events, page)):
                item = new[event.event]
                if item.size == event.size:
                    groups[event.room, event.is_live].append(item.entry(event.sender))
                    written.append((event.room, event.event))
                    gone.discard(event.event)
        places = await self._db.run(storage.rooms_of, list(gone)) if gone else []
        places += written
        replaced = await self._blocks_with(places)
        batch = Batch()
        made = _new_blocks(groups, replaced, {event for _, event in places})
        blocks = await build_cooperatively(self._clock, made, every=1)
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
        blocks: dict[BlockKey, list[IndexEntry]] = {}
        time_slice = TimeSlice(self._clock)
        for start in range(0, len(keys), READ_BLOCKS):
            stored = await self._db.run(storage.load_entries, keys[start : start + READ_BLOCKS])
            for key, packed in stored:
                entries = list(unpack_entries(packed))
                if any(entry.event in events for entry in entries):
                    blocks[key] = entries
                if time_slice.is_over:
                    await time_slice.next()
        return blocks


def _new_blocks(
    groups: Groups, replaced: dict[BlockKey, list[IndexEntry]], written: set[int]
) -> Iterator[IndexBlock]:
    """Blocks of the new entries, and of what remains of those that are replaced."""
    for (room, _), entries in groups.items():
        yield from blocks_of(room, entries)
    for key, entries in replaced.items():
        yield from blocks_of(key.room, [each for each in entries if each.event not in written])

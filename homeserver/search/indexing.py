"""What of the search index is not written yet: the newest messages, in memory.

The durable reader gives items one by one. They are collected until there are many, or for some
minutes, and searched here meanwhile: so users find what they have just sent, however the index is
written. Until an item is written, the position of the reader stays before it, so that a crash loses
nothing. Redacted and purged events leave the index within seconds.
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from homeserver.concurrency.clock import Clock
from homeserver.concurrency.retry_pauses import Stopped
from homeserver.search.index_writer import IndexWriter
from homeserver.search.indexed_events import IndexedEvent, IndexItem, RemovedEvent

COLLECT_SECONDS = 300.0
REMOVE_SECONDS = 2.0  # until an event that was redacted leaves the index
MAX_ITEMS = 2_000  # that wait; while as many are being written, the reader waits
MAX_BYTES = 1_000_000  # of the numbers of their texts
log = Logger()


class Indexing:
    """The items of one durable reader that wait to be written."""

    def __init__(self, writer: IndexWriter, clock: Clock) -> None:
        self._writer = writer
        self._new: dict[int, IndexedEvent] = {}
        self._new_bytes = 0
        self._removed: dict[int, RemovedEvent] = {}
        self._being_written: Sequence[IndexItem] = ()
        self._first_being_written = 0
        self._is_writing = False
        self._listeners: list[Deferred[None]] = []
        self._collecting = _Alarm(clock, COLLECT_SECONDS, self._write_all)
        self._removing = _Alarm(clock, REMOVE_SECONDS, self._write_removed)
        self._is_stopped = False

    def handle(self, item: IndexItem) -> Awaitable[None] | None:
        """Take an item; if too many wait, an awaitable that ends when they are written."""
        former = self._new.get(item.event_nid)
        if former is not None:
            self._new_bytes -= len(former.numbers)
        if isinstance(item, RemovedEvent):
            self._new.pop(item.event_nid, None)
            self._removed.setdefault(item.event_nid, item)
            self._removing.set()
        else:
            # After a crash it is read from the database at its first place in the log.
            self._new[item.event_nid] = (
                item if former is None else item._replace(position=former.position)
            )
            self._new_bytes += len(item.numbers)
            self._collecting.set()
        if len(self._new) + len(self._removed) < MAX_ITEMS and self._new_bytes < MAX_BYTES:
            return None
        if self._is_writing:
            return self.written()
        self._write_all()
        return None

    def first_unsaved(self) -> int | None:
        """The position of the oldest item that is not written (items come in order)."""
        oldest: list[IndexItem] = [*islice(self._new.values(), 1)]
        oldest += islice(self._removed.values(), 1)
        positions = [item.position for item in oldest]
        if self._being_written:
            positions.append(self._first_being_written)
        return min(positions, default=None)

    def unwritten(self) -> Iterator[IndexedEvent]:
        """The events that may not be in the stored index yet."""
        for item in chain(self._being_written, self._new.values()):
            if isinstance(item, IndexedEvent):
                yield item

    async def written(self) -> None:
        """Write what waits now, and return when it is written."""
        if self._is_writing:
            await self._write_ended()
        if not self._is_writing:
            self._write_all()
        if self._is_writing:
            await self._write_ended()

    async def stop(self) -> None:
        """Begin nothing more. What waits is for the next start."""
        self._end()
        if self._is_writing:
            await self._write_ended()

    def _end(self) -> None:
        self._is_stopped = True
        self._collecting.stop()
        self._removing.stop()

    async def _write_ended(self) -> None:
        ended: Deferred[None] = Deferred(self._listeners.remove)
        self._listeners.append(ended)
        await ended

    def _write_all(self) -> None:
        if not self._is_writing and not self._is_stopped:
            items: list[IndexItem] = [*self._removed.values(), *self._new.values()]
            self._new, self._new_bytes, self._removed = {}, 0, {}
            self._collecting.cancel()
            self._removing.cancel()
            self._begin(items)

    def _write_removed(self) -> None:
        if not self._is_writing and not self._is_stopped:
            items, self._removed = list(self._removed.values()), {}
            self._begin(items)

    def _begin(self, items: Sequence[IndexItem]) -> None:
        if items:
            self._being_written = items
            self._first_being_written = min(item.position for item in items)
            self._is_writing = True
            Deferred.fromCoroutine(self._writer.write(items)).addBoth(self._ended)

    def _ended(self, outcome: Failure | None) -> None:
        self._is_writing = False
        if isinstance(outcome, Failure) and outcome.check(Stopped):
            self._end()
        else:
            self._being_written = ()
            if isinstance(outcome, Failure):
                log.failure("a part of the search index was not written", outcome)
        if self._removed:
            self._removing.set()
        if self._new:
            self._collecting.set()
        listeners, self._listeners = self._listeners, []
        for ended in listeners:
            ended.callback(None)


class _Alarm:
    """Calls a function some seconds after it was first set."""

    def __init__(self, clock: Clock, seconds: float, call: Callable[[], None]) -> None:
        self._clock = clock
        self._seconds = seconds
        self._call = call
        self._timer: Any = None
        self._is_stopped = False

    def set(self) -> None:
        if self._timer is None and not self._is_stopped:
            self._timer = self._clock.callLater(self._seconds, self._time_is_up)

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def stop(self) -> None:
        self._is_stopped = True
        self.cancel()

    def _time_is_up(self) -> None:
        self._timer = None
        self._call()

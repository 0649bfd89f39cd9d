"""All durable readers of a server: made at one place, started and stopped together."""

from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from homeserver.concurrency.backoff import RetrySchedule
from homeserver.concurrency.clock import Clock
from homeserver.concurrency.periodic import PeriodicTask
from homeserver.concurrency.retry_pauses import RetryPauses
from homeserver.storage.database.batch import Row
from homeserver.storage.database.database import Database
from homeserver.streams.durable_reader import DurableReader, ItemSource, ReaderMoved
from homeserver.streams.item_handling import ConcurrentHandling, Handle, Item
from homeserver.streams.log import Log

STORE_SECONDS = 1.0
STORE_EVENTS = 1_000  # after which the positions of readers without items are stored, too
RETRIES = RetrySchedule((0.1, 0.5, 1.0, 2.0, 5.0))


class DurableReaders:
    """The readers; once a second the positions of those that have moved are stored together."""

    def __init__(self, log: Log, db: Database, clock: Clock) -> None:
        self._log = log
        self._db = db
        self._clock = clock
        self._readers: list[DurableReader[Any]] = []
        self._concurrent: list[ConcurrentHandling[Any]] = []
        self._pauses = RetryPauses(clock, RETRIES)
        self._stored_at = log.last_event_number  # when all positions were stored
        self._storing = PeriodicTask(
            clock, STORE_SECONDS, self._store, name="storing the positions of readers"
        )

    def __iter__(self) -> Iterator[DurableReader[Any]]:
        return iter(self._readers)

    def add(
        self,
        name: str,
        source: ItemSource[Item],
        handle: Handle[Item],
        first_unfinished: Callable[[], int | None] = lambda: None,
        first_unsaved: Callable[[], int | None] = lambda: None,
    ) -> DurableReader[Item]:
        """A new reader, subscribed to the log; see `DurableReader`."""
        reader = DurableReader(
            name,
            source,
            handle,
            self._log,
            self._db,
            self._clock,
            self._pauses,
            first_unfinished,
            first_unsaved,
        )
        self._readers.append(reader)
        self._log.subscribe(reader.apply)
        return reader

    def add_concurrent(
        self,
        name: str,
        source: ItemSource[Item],
        handle: Callable[[Item], Awaitable[None]],
        slots: int,
    ) -> DurableReader[Item]:
        """A new reader that handles several items at the same time; see `ConcurrentHandling`."""
        handling = ConcurrentHandling(name, handle, self._pauses, slots)
        self._concurrent.append(handling)
        return self.add(name, source, handling.begin, handling.first_unfinished)

    async def begin(self, reader: DurableReader[Any]) -> None:
        """Load and start a reader that was added after the others were started."""
        await reader.load()
        reader.start()

    async def remove(self, reader: DurableReader[Any]) -> None:
        """Stop a reader, and store its position; another of its name may be added later."""
        self._log.unsubscribe(reader.apply)
        self._readers.remove(reader)
        await reader.stop()
        rows = reader.unstored_row(is_due=True)
        if rows:
            await self._log.append(ReaderMoved(self._log.next_position()), rows)

    def check_running(self) -> None:
        """Raise `Stopped` once the readers are being stopped: for handlers with many steps."""
        self._pauses.check()

    async def load(self) -> None:
        """Find where each reader has to continue. No entry may be appended before."""
        for reader in self._readers:
            await reader.load()

    def start(self) -> None:
        """Let all readers begin."""
        for reader in self._readers:
            reader.start()
        self._storing.start()

    async def stop(self) -> None:
        """Let all readers end after their present items, and store their positions."""
        self._pauses.stop()
        await self._storing.stop()
        for reader in self._readers:
            await reader.stop()
        for handling in self._concurrent:
            await handling.ended()
        self._store_all()

    def _store(self) -> None:
        """Store the positions that are due, so that no start reads many events once more."""
        if self._log.last_event_number - self._stored_at >= STORE_EVENTS:
            self._store_all()
        else:
            self._append(is_due=False)

    def _store_all(self) -> None:
        self._stored_at = self._log.last_event_number
        self._append(is_due=True)

    def _append(self, *, is_due: bool) -> None:
        rows: list[Row] = []
        for reader in self._readers:
            rows += reader.unstored_row(is_due=is_due)
        if rows:
            stored = self._log.append(ReaderMoved(self._log.next_position()), rows)
            stored.addErrback(lambda _: None)

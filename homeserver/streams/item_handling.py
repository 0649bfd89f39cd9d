"""The handling of a reader's item, which is repeated while the database is unavailable."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, Protocol, TypeVar

from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.logger import Logger
from twisted.python.failure import Failure

from homeserver.concurrency.retry_pauses import RetryPauses, Stopped
from homeserver.protocol.errors import Unavailable
from homeserver.storage.database.batch import Row
from homeserver.storage.database.database import DatabaseUnavailable

log = Logger()


class ReaderItem(Protocol):
    """What a reader handles: an immutable value with the position of its entry."""

    @property
    def position(self) -> int: ...


Item = TypeVar("Item", bound=ReaderItem)
Rows = Sequence[Row]
Outcome = Rows | Awaitable[Rows | None] | None
Handle = Callable[[Item], Outcome]
"""Handles an item, and returns the rows to be stored, if any; or an awaitable of that."""


async def until_handled(
    reader: str,
    handle: Handle[Item],
    item: Item,
    pauses: RetryPauses,
    begun: Awaitable[Rows | None] | None = None,
) -> Rows | None:
    """Handle an item, again after an outage of the database; `begun` is the first attempt.

    An item that fails otherwise is logged, and counts as handled: it must not keep the reader from
    all later ones. Raises `Stopped`.
    """
    failures = 0
    while True:
        try:
            outcome = handle(item) if begun is None else begun
            begun = None
            return await outcome if isinstance(outcome, Awaitable) else outcome
        except (Unavailable, DatabaseUnavailable) as error:
            failures += 1
            if failures == 1:
                log.warn("the reader {reader} waits: {error}", reader=reader, error=error)
        except Stopped:
            raise
        except Exception:
            log.failure(
                "the reader {reader} could not handle {item}, and skips it",
                reader=reader,
                item=item,
            )
            return None
        await pauses.wait(failures)


class ConcurrentHandling(Generic[Item]):
    """Handles up to `slots` items at the same time, in the order in which they come.

    For items whose handling waits for other servers, or for many commits: one of them must not
    delay all others. It makes no rows of its own.
    """

    def __init__(
        self,
        reader: str,
        handle: Callable[[Item], Awaitable[None]],
        pauses: RetryPauses,
        slots: int,
    ) -> None:
        self._reader = reader
        self._handle = handle
        self._pauses = pauses
        self._slots = DeferredSemaphore(slots)
        self._unfinished: dict[Deferred[None], int] = {}  # with the positions of their items

    def first_unfinished(self) -> int | None:
        """The position of the oldest item that was begun, and is not handled yet."""
        return min(self._unfinished.values(), default=None)

    def begin(self, item: Item) -> Awaitable[None] | None:
        """Begin an item at once, or return an awaitable that begins it as soon as it may."""
        if self._slots.tokens:
            self._slots.acquire()
            self._start(item)
            return None
        return self._begin_later(item)

    async def ended(self) -> None:
        """Wait for the items in progress, after the pauses were stopped."""
        for running in list(self._unfinished):
            await running

    async def _begin_later(self, item: Item) -> None:
        await self._slots.acquire()
        try:
            self._pauses.check()
        except Stopped:
            self._slots.release()
            raise
        self._start(item)

    def _start(self, item: Item) -> None:
        # It may end at once, so it is noted before it begins.
        running: Deferred[None] = Deferred()
        self._unfinished[running] = item.position
        Deferred.fromCoroutine(self._run(item, running)).addErrback(self._failed)

    async def _run(self, item: Item, running: "Deferred[None]") -> None:
        try:
            await until_handled(self._reader, self._without_rows, item, self._pauses)
            del self._unfinished[running]
        except Stopped:
            pass  # it stays unfinished, so that the next process begins with it
        finally:
            self._slots.release()
            running.callback(None)

    async def _without_rows(self, item: Item) -> None:
        await self._handle(item)

    def _failed(self, failure: Failure) -> None:
        log.failure("the handling of an item failed", failure)

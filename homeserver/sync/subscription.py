"""A subscription: pushes to one reader what is new, as soon as there is something.

It knows no socket. Woken by the reader's feed, it asks the engine what is new above its position
and hands the encoded update on. At most one computation runs at a time, and one more follows if
there was news meanwhile.

Nothing is ever queued: while the way out is full, or the client has as many unacknowledged updates
as it may, only the position is kept. Once there is room again, all that was missed goes as one
update, in which the engine cuts long timelines short, as in any answer of `/sync`.

Spec: https://spec.matrix.org/v1.19/client-server-api/#syncing
"""

from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from homeserver.concurrency.clock import Clock
from homeserver.concurrency.cooperative import TimeSlice
from homeserver.sync.sync_request import SyncRequest
from homeserver.sync.update import Update

MIN_ROUND = 100  # subscriptions that are served together in any case
ROUND = 250  # most subscriptions that are served before the reactor gets to do something else
log = Logger()


class Engine(Protocol):
    """What is used of `homeserver.sync.engine.SyncEngine`."""

    def update(self, reader: SyncRequest, since: int | None) -> Coroutine[Any, Any, Update]: ...

    async def follow(self, user_id: str, wake: Callable[[], None]) -> Callable[[], None]: ...


class UpdateSink(Protocol):
    """Where updates go."""

    def send_update(self, update: bytes) -> None:
        """Pass an encoded update on; it is taken in any case."""

    def update_failed(self, failure: Failure) -> None:
        """No update could be made, and none will follow."""


class BatchScheduler:
    """Serves all that was woken together in the next turn of the reactor.

    So whoever sent the news has its answer before a thousand others are served, news that comes in
    quick succession goes in one update, and a busy room costs one timer instead of one each.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._due: deque[Callable[[], None]] = deque()
        self._is_scheduled = False

    def add(self, serve: Callable[[], None]) -> None:
        """Have `serve` called soon. It must not raise."""
        self._due.append(serve)
        self._schedule()

    def _schedule(self) -> None:
        if self._due and not self._is_scheduled:
            self._is_scheduled = True
            self._clock.callLater(0, self._serve)

    def _serve(self) -> None:
        self._is_scheduled = False
        turn = TimeSlice(self._clock)
        for served in range(min(len(self._due), ROUND)):
            if served >= MIN_ROUND and turn.is_over:
                break
            try:
                self._due.popleft()()
            except Exception:
                log.failure("somebody who was woken could not be served")
        self._schedule()


class Subscription:
    """What one socket is told.

    `since` is the position of the client's token, `None` for one that begins anew. `window` is how
    many updates a client that acknowledges them may have unread.
    """

    def __init__(
        self,
        engine: Engine,
        rounds: BatchScheduler,
        reader: SyncRequest,
        since: int | None,
        outlet: UpdateSink,
        window: int,
    ) -> None:
        self._engine = engine
        self._rounds = rounds
        self._reader = reader
        self._position = since
        self._outlet = outlet
        self._unacknowledged: deque[int] = deque(maxlen=window)
        self._acknowledges = False
        self._is_first = True
        self._woken = True
        self._queued = False
        self._blocked = False
        self._stopped = False
        self._running: Deferred[None] | None = None
        self._unfollow: Callable[[], None] | None = None

    def start(self) -> None:
        """Begin: the first update goes out at once, even if there is nothing new in it."""
        self._running = Deferred.fromCoroutine(self._follow())
        self._running.addCallbacks(lambda _: self._finished(), self._failed)

    def stop(self) -> None:
        """End: nothing is sent any more."""
        self._stopped = True
        if self._unfollow is not None:
            self._unfollow()
            self._unfollow = None
        if self._running is not None:
            self._running.cancel()

    def block(self) -> None:
        """The way out is full."""
        self._blocked = True

    def unblock(self) -> None:
        """There is room again."""
        self._blocked = False
        self._queue()

    def acknowledge(self, position: int) -> None:
        """The client has everything up to this position; from now on it has a window to keep."""
        self._acknowledges = True
        unread = self._unacknowledged
        while unread and unread[0] <= position:
            unread.popleft()
        self._queue()

    def use(self, reader: SyncRequest) -> None:
        """Make the following updates for this reader, which differs in its filter or the like."""
        self._reader = replace(reader, full_state=self._reader.full_state)

    def wake(self) -> None:
        """There may be news."""
        self._woken = True
        self._queue()

    @property
    def _may_run(self) -> bool:
        if self._blocked or self._stopped or self._running is not None:
            return False
        unread = self._unacknowledged
        return not (self._acknowledges and len(unread) == unread.maxlen)

    def _queue(self) -> None:
        if self._woken and not self._queued and self._may_run:
            self._queued = True
            self._rounds.add(self._run)

    def _run(self) -> None:
        self._queued = False
        if not self._may_run:
            return
        self._woken = False
        try:
            self._compute()
        except Exception:
            self._failed(Failure())

    def _compute(self) -> None:
        coroutine = self._engine.update(self._reader, self._position)
        # Most updates come from memory: begun by hand, they cost no Deferred.
        try:
            coroutine.send(None)
        except StopIteration as done:
            self._push(done.value)
        else:
            # What it waits for is a Deferred, which is simply asked once more.
            self._running = Deferred.fromCoroutine(coroutine).addCallback(self._push)
            self._running.addCallbacks(lambda _: self._finished(), self._failed)

    async def _follow(self) -> None:
        unfollow = await self._engine.follow(self._reader.user_id, self.wake)
        if self._stopped:
            unfollow()
        else:
            self._unfollow = unfollow

    def _push(self, update: Update) -> None:
        if self._stopped:
            return
        self._position = update.position
        if not self._is_first and update.is_empty:
            return
        if self._is_first:
            self._is_first = False
            self._reader = replace(self._reader, full_state=False)
        self._unacknowledged.append(update.position)
        self._outlet.send_update(update.encode())

    def _finished(self) -> None:
        self._running = None
        self._queue()

    def _failed(self, failure: Failure) -> None:
        self._running = None
        if not (self._stopped and failure.check(CancelledError)):
            self.stop()
            self._outlet.update_failed(failure)

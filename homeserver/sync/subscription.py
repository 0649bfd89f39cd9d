"""A subscription: pushes updates to one client as soon as there is something new.

It knows no socket. Woken by the user's change queue, it asks the engine for the update above its
token and passes the encoded update on. At most one computation runs at a time, and one more
follows if something changed meanwhile.

Nothing is ever queued: while the sink is full, or the client has as many unacknowledged updates as
it may, only the token is kept. Once the sink drains, all that was missed goes as one update, in
which the engine limits long timelines, as in any response of `/sync`.

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
from homeserver.streams.sync_tokens import SyncToken
from homeserver.sync.sync_request import SyncRequest
from homeserver.sync.update import Update

MIN_BATCH_SIZE = 100  # subscriptions that are always served together
MAX_BATCH_SIZE = 250  # subscriptions that are served before yielding to the reactor
log = Logger()


class Engine(Protocol):
    """The part of `homeserver.sync.engine.SyncEngine` that is used here."""

    def update(
        self, request: SyncRequest, since: SyncToken | None
    ) -> Coroutine[Any, Any, Update]: ...

    def received(self, request: SyncRequest, token: SyncToken) -> None: ...

    async def follow(self, user_id: str, wake: Callable[[], None]) -> Callable[[], None]: ...


class UpdateSink(Protocol):
    """The destination of updates: a socket, for example."""

    def send_update(self, update: bytes) -> None:
        """Pass an encoded update on; it is always accepted."""

    def update_failed(self, failure: Failure) -> None:
        """Report that no update could be made, and that none will follow."""


class BatchScheduler:
    """Serves the subscriptions that were woken together, in the next reactor iteration.

    So the sender of an event gets its response before a thousand other clients are served, quick
    changes go in one update, and a busy room costs one timer instead of one for each subscription.
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
        time_slice = TimeSlice(self._clock)
        for served in range(min(len(self._due), MAX_BATCH_SIZE)):
            if served >= MIN_BATCH_SIZE and time_slice.is_over:
                break
            try:
                self._due.popleft()()
            except Exception:
                log.failure("a woken subscription could not be served")
        self._schedule()


class Subscription:
    """The updates of one socket.

    `since` is the client's token, `None` for an initial sync. `window` is how many
    unacknowledged updates a client that acknowledges them may have.
    """

    def __init__(
        self,
        engine: Engine,
        scheduler: BatchScheduler,
        request: SyncRequest,
        since: SyncToken | None,
        sink: UpdateSink,
        window: int,
    ) -> None:
        self._engine = engine
        self._scheduler = scheduler
        self._request = request
        self._since = since
        self._sink = sink
        self._unacknowledged: deque[SyncToken] = deque(maxlen=window)
        self._acknowledges = False
        self._is_first = True
        self._woken = True
        self._queued = False
        self._blocked = False
        self._stopped = False
        self._running: Deferred[None] | None = None
        self._unfollow: Callable[[], None] | None = None

    def start(self) -> None:
        """Begin: the first update is sent at once, even if it is empty."""
        if self._since is not None:
            self._engine.received(self._request, self._since)
        self._running = Deferred.fromCoroutine(self._follow())
        self._running.addCallbacks(lambda _: self._finished(), self._failed)

    def stop(self) -> None:
        """End: no more updates are sent."""
        self._stopped = True
        if self._unfollow is not None:
            self._unfollow()
            self._unfollow = None
        if self._running is not None:
            self._running.cancel()

    def block(self) -> None:
        """Send nothing for now: the sink is full."""
        self._blocked = True

    def unblock(self) -> None:
        """Continue: the sink has drained."""
        self._blocked = False
        self._queue()

    def acknowledge(self, token: SyncToken) -> None:
        """The client has everything up to this token; from now on its window applies."""
        self._engine.received(self._request, token)
        self._acknowledges = True
        unread = self._unacknowledged
        while unread and unread[0].is_within(token):
            unread.popleft()
        self._queue()

    def use(self, request: SyncRequest) -> None:
        """Make the following updates for this request, which differs in its filter, for example."""
        self._request = replace(request, full_state=self._request.full_state)

    def wake(self) -> None:
        """Something may have changed."""
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
            self._scheduler.add(self._run)

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
        coroutine = self._engine.update(self._request, self._since)
        # Most updates come from memory: started manually, they cost no Deferred.
        try:
            coroutine.send(None)
        except StopIteration as done:
            self._push(done.value)
        else:
            # It waits for a Deferred, which the wrapping Deferred awaits again.
            self._running = Deferred.fromCoroutine(coroutine).addCallback(self._push)
            self._running.addCallbacks(lambda _: self._finished(), self._failed)

    async def _follow(self) -> None:
        unfollow = await self._engine.follow(self._request.user_id, self.wake)
        if self._stopped:
            unfollow()
        else:
            self._unfollow = unfollow

    def _push(self, update: Update) -> None:
        if self._stopped:
            return
        self._since = token = update.span.token
        if not self._is_first and update.is_empty:
            return
        if self._is_first:
            self._is_first = False
            self._request = replace(self._request, full_state=False)
        self._unacknowledged.append(token)
        self._sink.send_update(update.encode())
        if token.sticky is not None:
            self.wake()  # there are more sticky events than one update has

    def _finished(self) -> None:
        self._running = None
        self._queue()

    def _failed(self, failure: Failure) -> None:
        self._running = None
        if not (self._stopped and failure.check(CancelledError)):
            self.stop()
            self._sink.update_failed(failure)

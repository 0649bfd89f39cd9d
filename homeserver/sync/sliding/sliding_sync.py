"""Sliding sync: what one connection has not received yet, as soon as there is something.

A connection has one request at a time. A new one ends the one before, whose response has nothing
and its old `pos`: the client must not use it.

Spec: MSC4186
"""

from collections.abc import Callable

from twisted.internet.defer import Deferred

from homeserver.accounts.sessions.requester import Requester
from homeserver.concurrency.clock import Clock
from homeserver.concurrency.deferreds import fire_once
from homeserver.concurrency.fair_slots import FairSlots, QueueFull
from homeserver.protocol.errors import Unavailable
from homeserver.protocol.sliding_sync.request import SlidingSyncRequest
from homeserver.protocol.sliding_sync.response import SlidingSyncResponse
from homeserver.sync.engine import SyncEngine
from homeserver.sync.sections.lazy_members import LazyMembers
from homeserver.sync.sliding.connection import SlidingConnection
from homeserver.sync.sliding.connections import SlidingConnections
from homeserver.sync.sliding.extensions import Extensions
from homeserver.sync.sliding.response_draft import Answer
from homeserver.sync.sliding.responses import Responses
from homeserver.sync.sliding.shared_answers import SharedAnswers
from homeserver.sync.sync_request import SyncRequest
from homeserver.sync.user_change_queues import UserChangeQueues

CONCURRENT_RETURNS = 16  # users whose rooms are read from the database
MAX_WAITING_RETURNS = 200  # requests of one user
MAX_WAITING_RETURNS_IN_ALL = 20_000


class _Turn:
    """One request on a connection, until another one begins."""

    __slots__ = ("_is_over", "wake")

    def __init__(self) -> None:
        self._is_over = False
        self.wake: Callable[[], None] | None = None

    def is_over(self) -> bool:
        """Whether another request has begun."""
        return self._is_over

    def end(self) -> None:
        """Another request has begun."""
        self._is_over = True
        if self.wake is not None:
            self.wake()


class SlidingSync:
    """Serves the requests of all connections."""

    def __init__(
        self,
        engine: SyncEngine,
        connections: SlidingConnections,
        responses: Responses,
        shared: SharedAnswers,
        extensions: Extensions,
        change_queues: UserChangeQueues,
        lazy_members: LazyMembers,
        clock: Clock,
    ) -> None:
        self._engine = engine
        self._connections = connections
        self._responses = responses
        self._shared = shared
        self._extensions = extensions
        self._change_queues = change_queues
        self._lazy_members = lazy_members
        self._clock = clock
        self._returning = FairSlots(
            CONCURRENT_RETURNS,
            share=2,
            max_waiting=MAX_WAITING_RETURNS,
            max_waiting_in_all=MAX_WAITING_RETURNS_IN_ALL,
        )
        self._stopping = False

    @property
    def is_stopping(self) -> bool:
        """Whether the server is shutting down, so that no request waits."""
        return self._stopping

    def stop(self) -> None:
        """Answer all waiting requests with what there is: the server is shutting down."""
        self._stopping = True
        self._change_queues.wake_all()

    async def sync(
        self, caller: Requester, request: SlidingSyncRequest, max_wait: float
    ) -> SlidingSyncResponse:
        """The response to a request, after at most `max_wait` seconds.

        Raises `UnknownPos`, and `InvalidParam` for an invalid token of an extension.
        """
        response = await self.next_response(caller, request, max_wait)
        return SlidingSyncResponse(request.pos or "") if response is None else response

    async def next_response(
        self, caller: Requester, request: SlidingSyncRequest, max_wait: float
    ) -> SlidingSyncResponse | None:
        """The same; `None` if another request on the connection has begun."""
        reader = await self._engine.build_request(caller, connection=request.conn_id)
        self._extensions.received(reader, request.body.extensions.to_device)
        connection = await self._connections.open(reader, request.conn_id, request.pos)
        reader = connection.reader_of(reader)
        if request.pos is None:
            self._lazy_members.start_over(reader)
        turn = _Turn()
        finish = connection.begin_turn(turn.end)
        try:
            timeout = min(max(request.timeout, 0) / 1000, max_wait)
            answer = await self._wait(request, reader, connection, turn, timeout)
            if answer is None:
                return None
            return self._respond(request, reader, connection, answer)
        finally:
            finish()

    async def _wait(
        self,
        request: SlidingSyncRequest,
        reader: SyncRequest,
        connection: SlidingConnection,
        turn: _Turn,
        timeout: float,
    ) -> Answer | None:
        """What is new, or nothing new after `timeout` seconds; `None` if the turn is over."""
        deadline = self._clock.seconds() + timeout
        queue = self._change_queues.loaded(reader.user_id)
        is_returning = queue is None
        if queue is None:
            queue = await self._change_queues.queue_of(reader.user_id)
        while True:
            if turn.is_over():
                return None
            shared = self._shared.find(request, reader, connection, queue)
            if shared is not None:
                return shared
            changed: Deferred[None] = Deferred()
            wake = turn.wake = fire_once(changed)
            queue.waiters.add(wake)
            try:
                left = deadline - self._clock.seconds()
                may_wait = left > 0 and not self._stopping
                if not may_wait or not self._responses.has_nothing(
                    request, reader, connection, queue
                ):
                    answer = await self._make(request, reader, connection, is_returning)
                    is_returning = False
                    if turn.is_over():
                        return None
                    left = deadline - self._clock.seconds()
                    is_first = connection.state.token is None
                    if answer.is_new or is_first or left <= 0 or self._stopping:
                        return answer
                alarm = self._clock.callLater(left, wake)
                try:
                    await changed
                finally:
                    if alarm.active():
                        alarm.cancel()
            finally:
                queue.waiters.discard(wake)

    async def _make(
        self,
        request: SlidingSyncRequest,
        reader: SyncRequest,
        connection: SlidingConnection,
        is_returning: bool,
    ) -> Answer:
        """An answer; for users of whom nothing is in memory a few at a time.

        Those read a lot, and after a restart all clients return at once.
        """
        if not is_returning:
            return await self._responses.make(request, reader, connection)
        try:
            async with self._returning.slot(reader.user_id):
                return await self._responses.make(request, reader, connection)
        except QueueFull as error:
            raise Unavailable("Too many clients return at once; try again in a moment") from error

    def _respond(
        self,
        request: SlidingSyncRequest,
        reader: SyncRequest,
        connection: SlidingConnection,
        answer: Answer,
    ) -> SlidingSyncResponse:
        pos = connection.state.pos
        is_new = answer.is_new or pos is None
        if answer.is_new or pos is None:
            pos = connection.offer(answer.offered)
        else:
            connection.advance(answer.offered)
        if answer.is_shared:
            self._connections.has_news(reader, request.conn_id)
        else:
            self._connections.changed(reader, request.conn_id, is_new=is_new)
        return SlidingSyncResponse(pos, answer.counts, answer.rooms, answer.extensions)

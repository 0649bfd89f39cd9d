"""The queue of one destination: PDUs and EDUs in order, sent one transaction at a time.

While the destination responds, events wait in memory. When it does not, only the rooms in which it
lacks events are recorded, which costs next to nothing however long it is unavailable. When it is
back it gets the newest event of each of these rooms, those that stick, and then the rest. EDUs of
typing and presence are dropped, and those that must not be lost are in outboxes (`edu_outbox.py`).

Spec: https://spec.matrix.org/v1.19/server-server-api/#transactions
"""

from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol

import msgspec
from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.logger import Logger

from federation.paths import V1, path_of
from federation.sending.edu_outbox import EduOutbox, WaitingEdus, is_refusal
from federation.transport.client import FederationClient
from federation.transport.destination_health import DestinationHealth
from federation.transport.errors import BackingOff, FederationError, RemoteError
from homeserver.concurrency.backoff import RetrySchedule
from homeserver.concurrency.clock import Clock, DelayedCall
from homeserver.protocol.errors import Unavailable
from homeserver.rooms.events.local_server import LocalServer
from homeserver.streams.positions import MAX_POSITION

MAX_PDUS, MAX_EDUS = 50, 100  # of a transaction
MAX_WAITING = 500  # events that wait in memory for one destination
MAX_WAITING_EDUS = 500
MAX_EXAMPLES = 3  # of events that are not accepted, in the log
RETRY_SECONDS = 5.0  # after an error that names no time
RETRIES = RetrySchedule.doubling(RETRY_SECONDS, 3_600.0)  # while a server refuses everything
TIMEOUT_SECONDS = 60.0

log = Logger()


class QueuedPdu(msgspec.Struct, frozen=True):
    """An event in a queue, with its room and its position in the log.

    `sticky_position` is the place of a sticky event that is sent because the destination has joined
    the room at `position`, without the events before it. With `resume_at`, the destination lacks
    more sticky events of the room, from that position on.
    """

    position: int
    room: int
    json: bytes
    sticky_position: int | None = None
    resume_at: int | None = None


class CatchUpStore(Protocol):
    """The store of the rooms in which destinations lack events."""

    def record_missed(self, destination: str, events: Sequence[QueuedPdu]) -> Awaitable[None]:
        """Record the rooms of events that could not be sent."""

    async def missed(self, destination: str, limit: int) -> list[QueuedPdu]:
        """Up to `limit` events to send: the newest of each recorded room, and those that stick."""

    async def mark_caught_up(self, destination: str, rooms: Sequence[int]) -> None:
        """Remove these rooms from the record: the destination lacks nothing of them any more."""

    async def resume_later(self, destination: str, sent: Sequence[QueuedPdu]) -> None:
        """Record where to resume in rooms of which these events are the last that were sent."""


class SendContext(msgspec.Struct, frozen=True):
    """The collaborators of a `DestinationQueue`."""

    client: FederationClient
    destinations: DestinationHealth
    backlog: CatchUpStore
    local_server: LocalServer
    clock: Clock
    slots: DeferredSemaphore
    unproven_slots: DeferredSemaphore
    next_txn_id: Callable[[], str]


class DestinationQueue:
    """The PDUs and EDUs that are to be sent to one destination."""

    def __init__(self, destination: str, context: SendContext) -> None:
        self.destination = destination
        self.is_catching_up = False
        self._context = context
        self._pdus: deque[QueuedPdu] = deque()
        self._lowest_sticky = MAX_POSITION  # of events that are sent because of a join, or less
        self._edus: OrderedDict[object, dict[str, Any]] = OrderedDict()
        self._waiting = WaitingEdus(destination)
        self._refusals = 0  # in a row
        self._recorded: dict[
            int, QueuedPdu
        ] = {}  # by room: what was recorded since the last `missed`
        self._task: Deferred[None] | None = None
        self._is_running = False
        self._alarm: DelayedCall | None = None
        self._stopped = False

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to send and nothing to catch up with."""
        return not (self._has_work or self._is_running)

    @property
    def has_waiting_edus(self) -> bool:
        """Whether there may be EDUs in an outbox that the destination does not have."""
        return self._waiting.are_waiting

    @property
    def _has_work(self) -> bool:
        return bool(self._pdus or self._edus or self.is_catching_up or self._waiting.are_due)

    @property
    def first_position(self) -> int | None:
        """The position of the oldest event that waits in memory."""
        if not self._pdus:
            return None
        return min(self._pdus[0].position, self._lowest_sticky)

    def put(self, pdu: QueuedPdu) -> None:
        """Add an event to the queue."""
        if pdu.sticky_position is not None:
            # Another reader has put it there, which need not be as far as that of all events.
            before = self._lowest_sticky if self._pdus else MAX_POSITION
            self._lowest_sticky = min(before, pdu.position)
        elif not self._pdus:
            self._lowest_sticky = MAX_POSITION
        self._pdus.append(pdu)
        if self.is_catching_up or len(self._pdus) > MAX_WAITING:
            self._record_all()
        self.wake()

    def put_edu(self, edu: dict[str, Any], key: object) -> None:
        """Add an EDU to the queue, in place of a waiting one with the same key."""
        if self.is_catching_up and self._alarm is not None:
            return  # it would be stale by the time that it arrives
        self._edus[key] = edu
        self._edus.move_to_end(key)
        if len(self._edus) > MAX_WAITING_EDUS:
            self._edus.popitem(last=False)
        self.wake()

    def note_edus(self, outbox: EduOutbox) -> None:
        """Send what was added to an outbox."""
        self._waiting.note(outbox)
        self.wake()

    def catch_up(self) -> None:
        """Send what the destination has missed."""
        self.is_catching_up = True
        self.wake()

    def wake(self, *, despite_pause: bool = False) -> None:
        """Start sending, unless the queue pauses after a failure."""
        if self._alarm is not None:
            if not despite_pause:
                return
            self._alarm.cancel()
            self._alarm = None
        if not self._is_running and not self._stopped and not self.is_idle:
            # It may end at once, where the destination is backing off.
            self._is_running = True
            self._task = Deferred.fromCoroutine(self._run())
            self._task.addErrback(self._failed)

    async def stop(self) -> None:
        """Send nothing more."""
        self._stopped = True
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self._is_running and self._task is not None:
            self._task.cancel()

    def _failed(self, failure: Any) -> None:
        self._is_running = False
        if not self._stopped:
            log.failure("sending to {server} failed", failure, server=self.destination)
            self._pause(RETRY_SECONDS)

    async def _run(self) -> None:
        pause: float | None = None
        try:
            slots = self._slots()
            await slots.acquire()
            try:
                while not self._stopped and self._has_work:
                    await self._send_next()
                    self._refusals = 0
            finally:
                slots.release()
        except FederationError as error:
            pause = self._pause_after(error)
        except Unavailable:
            pause = RETRY_SECONDS
        self._is_running = False
        if pause is not None:
            if self._pdus:
                self._record_all()
            self._pause(pause)

    def _slots(self) -> DeferredSemaphore:
        """The semaphore that limits how many destinations are sent to at the same time.

        Any user can claim that a server is in a room, also one that takes long to be found. Servers
        that have never responded are tried a few at a time, and delay nothing that goes to the
        others.
        """
        known = self._context.destinations.health_of(self.destination)
        return self._context.unproven_slots if known.succeeded_at is None else self._context.slots

    async def _send_next(self) -> None:
        """Send one transaction; its PDUs and EDUs leave the queue once it was accepted."""
        if self._waiting.are_due:
            # Nothing is read for a destination that is not tried anyway.
            self._context.destinations.check(self.destination)
            await self._waiting.load()
            if self._waiting.must_be_alone:
                await self._send_waiting()
        try:
            await self._send_others()
        except FederationError as error:
            self._waiting.not_sent()
            if not (self._waiting.number and is_refusal(error)):
                raise
            self._waiting.refused()
        except BaseException:
            self._waiting.not_sent()
            raise
        else:
            self._waiting.accepted()

    async def _send_waiting(self) -> None:
        """Send EDUs of the outboxes alone, to a destination that has refused some."""
        waiting = self._waiting
        while waiting.number:
            try:
                await self._send([], [msgspec.Raw(edu) for edu in waiting.edus])
                waiting.accepted()
                return
            except FederationError as error:
                waiting.not_sent()
                if not is_refusal(error):
                    raise
                if waiting.number > 1:
                    waiting.refused()
                    await waiting.load()
                    continue
                # If this fails too, it is not about the EDU.
                await self._send([], [])
                log.error(
                    "{server} refuses an EDU, which is dropped: {error}",
                    server=self.destination,
                    error=error,
                )
                waiting.drop()

    async def _send_others(self) -> None:
        """Send PDUs, EDUs, and with them the EDUs of the outboxes that are loaded."""
        if self.is_catching_up:
            pdus = await self._context.backlog.missed(self.destination, MAX_PDUS)
            if not pdus and not self._recorded:
                self.is_catching_up = False
            self._recorded.clear()
        else:
            pdus = [self._pdus[place] for place in range(min(MAX_PDUS, len(self._pdus)))]
        waiting = [msgspec.Raw(edu) for edu in self._waiting.edus]
        edus = [self._edus[key] for key in list(self._edus)[: MAX_EDUS - len(waiting)]]
        if pdus or edus or waiting:
            await self._send(pdus, [*waiting, *edus])
        for key in list(self._edus)[: len(edus)]:
            if self._edus[key] in edus:
                del self._edus[key]
        if self.is_catching_up:
            await self._caught_up(pdus)
            return
        for pdu in pdus:
            if self._pdus and self._pdus[0] is pdu:
                self._pdus.popleft()

    async def _caught_up(self, pdus: Sequence[QueuedPdu]) -> None:
        """Remove the rooms of events that were sent from the record."""
        again = self._recorded  # recorded while the transaction was sent
        unfinished = [pdu for pdu in pdus if pdu.resume_at is not None]
        await self._context.backlog.resume_later(self.destination, unfinished)
        left = {pdu.room for pdu in unfinished}
        rooms = list(dict.fromkeys(pdu.room for pdu in pdus if pdu.room not in {*again, *left}))
        await self._context.backlog.mark_caught_up(self.destination, rooms)
        # What was recorded while these rooms were being removed may have been removed with them.
        missed = [self._recorded[room] for room in rooms if room in self._recorded]
        if missed:
            await self._context.backlog.record_missed(self.destination, missed)

    async def _send(self, pdus: Sequence[QueuedPdu], edus: Sequence[Any]) -> None:
        context = self._context
        content: dict[str, Any] = {
            "origin": context.local_server.server_name,
            "origin_server_ts": context.local_server.now_ms(),
            "pdus": [msgspec.Raw(pdu.json) for pdu in pdus],
        }
        if edus:
            content["edus"] = edus
        response: dict[str, Any] = await context.client.put(
            self.destination,
            path_of(f"{V1}/send", context.next_txn_id()),
            msgspec.json.encode(content, order="sorted"),
            timeout=TIMEOUT_SECONDS,
        )
        outcomes = response.get("pdus")
        rejections = [
            f"{event_id[:255]}: {str(outcome['error'])[:300]}"
            for event_id, outcome in (outcomes if isinstance(outcomes, dict) else {}).items()
            if isinstance(outcome, dict) and "error" in outcome
        ]
        if rejections:
            log.info(
                "{server} rejected {count} events: {examples}",
                server=self.destination,
                count=len(rejections),
                examples=rejections[:MAX_EXAMPLES],
            )

    def _record_all(self) -> None:
        """Drop the events from memory, and record their rooms."""
        self.is_catching_up = True
        events, self._pdus = list(self._pdus), deque()
        self._edus.clear()
        self._recorded.update((event.room, event) for event in events)
        self._context.backlog.record_missed(self.destination, events)

    def _pause_after(self, error: FederationError) -> float:
        backoff = self._context.destinations.health_of(self.destination)
        left = backoff.retry_at - self._context.clock.seconds()
        if isinstance(error, RemoteError) and error.retry_after_ms is not None:
            return max(error.retry_after_ms / 1000, 1.0)
        if isinstance(error, BackingOff) or left > 0:
            return max(left, 0.1)
        self._refusals += 1
        return RETRIES.pause(self._refusals)

    def _pause(self, seconds: float) -> None:
        if not self._stopped and self._alarm is None:
            self._alarm = self._context.clock.callLater(seconds, self._pause_over)

    def _pause_over(self) -> None:
        self._alarm = None
        self.wake()

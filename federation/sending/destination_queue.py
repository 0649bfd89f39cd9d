"""The outbox of one destination: what it is still to be told, in order, one transaction at a time.

While the destination answers, events wait in memory. When it does not, only the rooms are noted in
which it lacks something, which costs next to nothing however long it is away; once it is there
again it gets the newest event of each, and then the rest of what waits.

Spec: https://spec.matrix.org/v1.19/server-server-api/#transactions
"""

from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.logger import Logger

from federation.paths import V1, path_of
from federation.transport.client import FederationClient
from federation.transport.destination_health import DestinationHealth
from federation.transport.errors import BackingOff, FederationError, RemoteError
from homeserver.concurrency.clock import Clock, DelayedCall
from homeserver.protocol.errors import Unavailable
from homeserver.rooms.events.local_server import LocalServer

MAX_PDUS, MAX_EDUS = 50, 100  # of a transaction
MAX_WAITING = 500  # events that wait in memory for one destination
MAX_WAITING_EDUS = 500
MAX_EXAMPLES = 3  # of events that are not accepted, in the log
RETRY_SECONDS = 5.0  # after an answer that says no more than that it was not taken
TIMEOUT_SECONDS = 60.0

log = Logger()


@dataclass(frozen=True, slots=True)
class QueuedPdu:
    """An event that waits to be sent, with its room and its position in the log."""

    position: int
    room: int
    json: bytes


class CatchUpStore(Protocol):
    """Where it is noted in which rooms destinations lack events."""

    def record_missed(self, destination: str, events: Sequence[QueuedPdu]) -> Awaitable[None]:
        """Note the rooms of events that could not be sent."""

    async def newest(self, destination: str, limit: int) -> list[QueuedPdu]:
        """The newest event that is to be sent of each of some rooms that were noted."""

    async def mark_caught_up(self, destination: str, rooms: Sequence[int]) -> None:
        """The destination lacks nothing of these rooms any more."""


@dataclass(frozen=True, slots=True)
class SendContext:
    """What outboxes send by."""

    client: FederationClient
    destinations: DestinationHealth
    backlog: CatchUpStore
    origin: LocalServer
    clock: Clock
    slots: DeferredSemaphore
    unproven_slots: DeferredSemaphore
    next_txn_id: Callable[[], str]


class DestinationQueue:
    """What one destination is to be told."""

    def __init__(self, destination: str, ways: SendContext, *, is_behind: bool = False) -> None:
        self.destination = destination
        self.is_catching_up = is_behind
        self._ways = ways
        self._pdus: deque[QueuedPdu] = deque()
        self._edus: OrderedDict[object, dict[str, Any]] = OrderedDict()
        self._noted: dict[int, QueuedPdu] = {}  # by room: what was noted since it was last asked
        self._task: Deferred[None] | None = None
        self._is_running = False
        self._alarm: DelayedCall | None = None
        self._stopped = False

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to send, and nothing to remember."""
        return not (self._pdus or self._edus or self.is_catching_up or self._is_running)

    @property
    def first_position(self) -> int | None:
        """The position of the oldest event that waits in memory."""
        return self._pdus[0].position if self._pdus else None

    def put(self, pdu: QueuedPdu) -> None:
        """Have an event sent."""
        self._pdus.append(pdu)
        if self.is_catching_up or len(self._pdus) > MAX_WAITING:
            self._note_all()
        self.wake()

    def put_edu(self, edu: dict[str, Any], key: object) -> None:
        """Have an EDU sent; it takes the place of one with the same key that still waits."""
        if self.is_catching_up and self._alarm is not None:
            return  # it would be stale by the time that it arrives
        self._edus[key] = edu
        self._edus.move_to_end(key)
        if len(self._edus) > MAX_WAITING_EDUS:
            self._edus.popitem(last=False)
        self.wake()

    def wake(self, *, despite_pause: bool = False) -> None:
        """Send what there is, unless a pause is to be kept."""
        if self._alarm is not None:
            if not despite_pause:
                return
            self._alarm.cancel()
            self._alarm = None
        if not self._is_running and not self._stopped and not self.is_idle:
            # It may end at once, where the destination is not to be asked yet.
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
                while not self._stopped and (self.is_catching_up or self._pdus or self._edus):
                    await self._send_next()
            finally:
                slots.release()
        except FederationError as error:
            pause = self._pause_after(error)
        except Unavailable:
            pause = RETRY_SECONDS
        self._is_running = False
        if pause is not None:
            if self._pdus:
                self._note_all()
            self._pause(pause)

    def _slots(self) -> DeferredSemaphore:
        """Whose turn it waits for.

        Anybody can claim that servers are in a room, also such that take long to be found. What
        has never answered is tried a few at a time, and delays nothing that goes to the others.
        """
        known = self._ways.destinations.health_of(self.destination)
        return self._ways.unproven_slots if known.succeeded_at is None else self._ways.slots

    async def _send_next(self) -> None:
        """One transaction; what it held is gone once it was taken."""
        if self.is_catching_up:
            pdus = await self._ways.backlog.newest(self.destination, MAX_PDUS)
            if not pdus and not self._noted:
                self.is_catching_up = False
                return
            self._noted.clear()
        else:
            pdus = [self._pdus[place] for place in range(min(MAX_PDUS, len(self._pdus)))]
        edus = [self._edus[key] for key in list(self._edus)[:MAX_EDUS]]
        if pdus or edus:
            await self._send(pdus, edus)
        for key in list(self._edus)[: len(edus)]:
            if self._edus[key] in edus:
                del self._edus[key]
        if not self.is_catching_up:
            for pdu in pdus:
                if self._pdus and self._pdus[0] is pdu:
                    self._pdus.popleft()
            return
        again = self._noted  # something came while this was under way
        rooms = [pdu.room for pdu in pdus if pdu.room not in again]
        await self._ways.backlog.mark_caught_up(self.destination, rooms)
        # What was noted while these were being forgotten may have been forgotten with them.
        missed = [self._noted[room] for room in rooms if room in self._noted]
        if missed:
            await self._ways.backlog.record_missed(self.destination, missed)

    async def _send(self, pdus: Sequence[QueuedPdu], edus: Sequence[dict[str, Any]]) -> None:
        ways = self._ways
        content: dict[str, Any] = {
            "origin": ways.origin.server_name,
            "origin_server_ts": ways.origin.now_ms(),
            "pdus": [msgspec.Raw(pdu.json) for pdu in pdus],
        }
        if edus:
            content["edus"] = edus
        answer: dict[str, Any] = await ways.client.put(
            self.destination,
            path_of(f"{V1}/send", ways.next_txn_id()),
            msgspec.json.encode(content, order="sorted"),
            timeout=TIMEOUT_SECONDS,
        )
        outcomes = answer.get("pdus")
        refusals = [
            f"{event_id[:255]}: {str(outcome['error'])[:300]}"
            for event_id, outcome in (outcomes if isinstance(outcomes, dict) else {}).items()
            if isinstance(outcome, dict) and "error" in outcome
        ]
        if refusals:
            log.info(
                "{server} does not accept {count} events: {examples}",
                server=self.destination,
                count=len(refusals),
                examples=refusals[:MAX_EXAMPLES],
            )

    def _note_all(self) -> None:
        """Move what waits from memory to the notes."""
        self.is_catching_up = True
        events, self._pdus = list(self._pdus), deque()
        self._edus.clear()
        self._noted.update((event.room, event) for event in events)
        self._ways.backlog.record_missed(self.destination, events)

    def _pause_after(self, error: FederationError) -> float:
        backoff = self._ways.destinations.health_of(self.destination)
        left = backoff.retry_at - self._ways.clock.seconds()
        if isinstance(error, RemoteError) and error.retry_after_ms is not None:
            return max(error.retry_after_ms / 1000, 1.0)
        if isinstance(error, BackingOff) or left > 0:
            return max(left, 0.1)
        return RETRY_SECONDS

    def _pause(self, seconds: float) -> None:
        if not self._stopped and self._alarm is None:
            self._alarm = self._ways.clock.callLater(seconds, self._pause_over)

    def _pause_over(self) -> None:
        self._alarm = None
        self.wake()

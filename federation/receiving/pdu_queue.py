"""The queue of received PDUs: each room receives its events in order, independently of other rooms.

Events with missing previous or auth events wait while these are fetched, and delay nothing but the
events that the same server sends into the same room, for a bounded time. So do events of a room
that this server is joining: the others in the room know of the join before it is stored here. A
server may have a bounded number of events in progress; beyond that it has to send again later.

Spec: https://spec.matrix.org/v1.19/server-server-api/#pdus
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger

from federation.receiving.event_fetcher import EventFetcher
from federation.receiving.pdu_checks import (
    PduChecks,
    ReceivedPdu,
    log_dropped,
    read_pdu,
    room_id_of,
)
from federation.receiving.rescinded_invites import RescindedInvites
from federation.receiving.room_access import RoomAccess
from federation.transport.errors import FederationError
from homeserver.concurrency.keyed_locks import KeyedLocks
from homeserver.protocol.errors import LimitExceeded, MatrixError, NotFound, Unavailable
from homeserver.protocol.events import Event
from homeserver.protocol.proposals.sticky_events import sticky_duration
from homeserver.protocol.room_versions import RoomVersion
from homeserver.rooms.inbound.event_checks import EventsMissing
from homeserver.rooms.inbound.received_event import ReceivedEvent
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room
from homeserver.rooms.room.writer import RoomWriter
from homeserver.web.rate_limits import RateLimits

MAX_IN_PROGRESS = 500  # events of one server
RETRY_MS = 5_000
JOIN_WAIT_SECONDS = 10.0  # for a join of this server that is in progress
STICKY_LIMIT = "remote_sticky"
FETCH_SECONDS = 120.0  # for fetching what a batch of one origin and room refers to

Outcome = dict[str, str]  # `{}`, or `{"error": the reason why it was not accepted}`
log = Logger()


class _Batch:
    """Events of one room and origin: the outcome for each, and when the last is durable."""

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.outcomes: dict[str, Outcome] = {}
        self.dropped: list[str] = []
        self.done: Deferred[None] | None = None

    def drop(self, event_id: str | None, reason: str) -> None:
        """Record a PDU that is not a valid event of the room."""
        self.dropped.append(reason)
        if event_id is not None:
            self.outcomes[event_id] = {"error": reason}

    def fail(self, event: Event, reason: str) -> None:
        """Record that an event could not be received; its server may send it again."""
        self.outcomes[event.event_id] = {"error": reason}

    def record(self, event: Event, received: ReceivedEvent) -> None:
        """Record that an event was received, whether accepted or rejected."""
        self.outcomes[event.event_id] = {}
        self.done = received.done or self.done
        status = received.stored.status
        if reason := status.rejected or status.soft_failed:
            # The event is stored, so its server need not send it again.
            log.info("rejected PDU {event}: {reason}", event=event, reason=reason)


class IncomingQueue:
    """Receives the PDUs of other servers."""

    def __init__(
        self,
        rooms: RoomRegistry,
        access: RoomAccess,
        checks: PduChecks,
        fetcher: EventFetcher,
        rescinded_invites: RescindedInvites,
        joining: KeyedLocks[str],
        limits: RateLimits,
    ) -> None:
        self._limits = limits
        self._rooms = rooms
        self._access = access
        self._checks = checks
        self._fetcher = fetcher
        self._rescinded_invites = rescinded_invites
        self._joining = joining
        self._in_progress: Counter[str] = Counter()
        self._origins: KeyedLocks[tuple[str, str]] = KeyedLocks()  # by origin and room
        self._rooms_in_progress: KeyedLocks[str] = KeyedLocks()

    async def put(self, origin: str, pdus: Sequence[msgspec.Raw]) -> dict[str, Outcome]:
        """Receive PDUs; returns the outcome for each by event id.

        Raises `LimitExceeded` where the server has too many in progress or sends too many sticky
        events, and `Unavailable` while the database is unavailable: then the other server sends all
        of them again.
        """
        if self._in_progress[origin] + len(pdus) > MAX_IN_PROGRESS:
            raise LimitExceeded(RETRY_MS)
        self._in_progress[origin] += len(pdus)
        try:
            by_room: dict[str, list[ReceivedPdu]] = {}
            for pdu in map(read_pdu, pdus):
                if pdu is not None and (room_id := room_id_of(pdu.value)) is not None:
                    by_room.setdefault(room_id, []).append(pdu)
            self._check_limit(origin, by_room.values())
            batches = [
                Deferred.fromCoroutine(self._receive_in_order(origin, room_id, batch))
                for room_id, batch in by_room.items()
            ]
            outcomes: dict[str, Outcome] = {}
            results: list[tuple[bool, Any]] = await DeferredList(batches, consumeErrors=True)
            for succeeded, result in results:
                if not succeeded:
                    result.raiseException()
                outcomes |= result
            return outcomes
        finally:
            self._in_progress[origin] -= len(pdus)
            if not self._in_progress[origin]:
                del self._in_progress[origin]

    def _check_limit(self, origin: str, batches: Iterable[Sequence[ReceivedPdu]]) -> None:
        """Count the sticky events of a transaction, all or none: it is sent again as a whole."""
        number = sum(bool(sticky_duration(pdu.value)) for batch in batches for pdu in batch)
        if number:
            self._limits.check(STICKY_LIMIT, origin, number)

    async def _receive_in_order(
        self, origin: str, room_id: str, pdus: Sequence[ReceivedPdu]
    ) -> dict[str, Outcome]:
        try:
            async with self._origins.hold((origin, room_id)):
                return await self._receive_room(origin, room_id, pdus)
        except Unavailable:
            raise
        except Exception:
            # The other rooms of the transaction are not affected; the PDUs of this one may be sent
            # again.
            log.failure(
                "failed to receive PDUs of {room} from {origin}", room=room_id, origin=origin
            )
            return {}

    async def _receive_room(
        self, origin: str, room_id: str, pdus: Sequence[ReceivedPdu]
    ) -> dict[str, Outcome]:
        try:
            room = await self._room(origin, room_id)
        except Unavailable:
            raise
        except MatrixError as error:
            await self._rescinded_invites.receive(room_id, pdus)
            return _all_failed(pdus, await self._version(room_id), str(error))
        checked = await self._checks.check(room.version, room_id, pdus)
        batch = _Batch(origin)
        for pdu, outcome in zip(pdus, checked, strict=True):
            if isinstance(outcome, str):
                batch.drop(pdu.event_id(room.version), outcome)
        log_dropped(room_id, batch.dropped)
        events = [outcome for outcome in checked if isinstance(outcome, Event)]
        async with self._rooms.writing(room_id) as writer:
            events = [event for event in events if await self._is_allowed(batch, writer, event)]
            async with self._rooms_in_progress.hold(room_id):
                waiting = await self._receive_known(batch, writer, events)
            if waiting:
                await self._receive_others(batch, writer, waiting)
            # The event that was appended to the log last is durable last.
            if batch.done is not None:
                await batch.done
        return batch.outcomes

    async def _room(self, origin: str, room_id: str) -> Room:
        """The room, after a join that is in progress. Raises as `RoomAccess.present` does."""
        try:
            return await self._access.present(origin, room_id)
        except NotFound:
            if not self._joining.is_held(room_id):
                raise
        clock = self._rooms.local_server.clock
        await self._joining.wait_until_free(room_id, JOIN_WAIT_SECONDS, clock)
        return await self._access.present(origin, room_id)

    async def _is_allowed(self, batch: _Batch, writer: RoomWriter, event: Event) -> bool:
        if event.sender_server == batch.origin or await self._access.is_allowed(
            event.sender_server, writer.room
        ):
            return True
        batch.fail(event, "the room's access list denies the sender's server")
        return False

    async def _receive_known(
        self, batch: _Batch, writer: RoomWriter, events: Sequence[Event]
    ) -> Sequence[Event]:
        """Receive events up to the first with missing references; returns that one and those after
        it.

        No other server is asked for anything, so that this takes only a moment.
        """
        if len(events) > 1:
            await self._fetcher.look_up(writer, events)
        for place, event in enumerate(events):
            try:
                batch.record(event, await self._fetcher.receive_complete(writer, event))
            except EventsMissing:
                # Their server has sent them in this order.
                return events[place:]
        return ()

    async def _receive_others(
        self, batch: _Batch, writer: RoomWriter, events: Sequence[Event]
    ) -> None:
        """Receive events, and fetch from their origin what they refer to, within `FETCH_SECONDS`.

        Events of other servers are received meanwhile.
        """
        fetching = self._fetcher.within(self._rooms.local_server.clock, FETCH_SECONDS)
        await fetching.fetch_missing(batch.origin, writer, events)
        for event in events:
            try:
                received = await fetching.receive_with_auth(batch.origin, writer, event)
            except EventsMissing as error:
                batch.fail(event, f"missing events could not be fetched: {error}")
            except FederationError as error:
                log.info("could not receive {event}: {error}", event=event, error=error)
                batch.fail(event, "missing events could not be fetched")
            else:
                batch.record(event, received)

    async def _version(self, room_id: str) -> RoomVersion | None:
        room = await self._rooms.find(room_id)
        return None if room is None else room.version


def _all_failed(
    pdus: Sequence[ReceivedPdu], version: RoomVersion | None, reason: str
) -> dict[str, Outcome]:
    if version is None:
        return {}
    ids = [pdu.event_id(version) for pdu in pdus]
    return {event_id: {"error": reason} for event_id in ids if event_id is not None}

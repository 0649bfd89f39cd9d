"""What other servers send: each room takes its events one after the other, and waits for no other.

Events that cite what is not here stand aside while it is asked for, and hold up nothing but what
the same server sends into the same room, for a bounded time. A server may have a bounded number of
events in work; beyond that it is told to come again later.

Spec: https://spec.matrix.org/v1.19/server-server-api/#pdus
"""

from collections import Counter
from collections.abc import Sequence
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
from homeserver.protocol.errors import LimitExceeded, MatrixError, Unavailable
from homeserver.protocol.events import Event
from homeserver.protocol.room_versions import RoomVersion
from homeserver.rooms.inbound.event_checks import EventsMissing
from homeserver.rooms.inbound.receiver import ReceivedEvent
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.writer import RoomWriter

MAX_IN_WORK = 500  # events of one server
RETRY_MS = 5_000
FETCH_SECONDS = 120.0  # for all that the events of one origin and room need at a time

Outcome = dict[str, str]  # `{}`, or `{"error": why it is not accepted}`
log = Logger()


class _Batch:
    """Events of one room and origin: what became of each, and when the last is durable."""

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.outcomes: dict[str, Outcome] = {}
        self.dropped: list[str] = []
        self.done: Deferred[None] | None = None

    def drop(self, event_id: str | None, why: str) -> None:
        """Something is no event of the room."""
        self.dropped.append(why)
        if event_id is not None:
            self.outcomes[event_id] = {"error": why}

    def refuse(self, event: Event, why: str) -> None:
        """An event could not be received, and may be sent again."""
        self.outcomes[event.event_id] = {"error": why}

    def take(self, event: Event, received: ReceivedEvent) -> None:
        """An event was received, whatever became of it."""
        self.outcomes[event.event_id] = {}
        self.done = received.done or self.done
        standing = received.stored.status
        if refusal := standing.rejected or standing.soft_failed:
            # It was dealt with, and need not be sent again.
            log.info("{event} is refused: {why}", event=event, why=refusal)


class IncomingQueue:
    """Takes events of other servers in."""

    def __init__(
        self,
        rooms: RoomRegistry,
        access: RoomAccess,
        checks: PduChecks,
        missing: EventFetcher,
        withdrawals: RescindedInvites,
    ) -> None:
        self._rooms = rooms
        self._access = access
        self._checks = checks
        self._missing = missing
        self._withdrawals = withdrawals
        self._in_work: Counter[str] = Counter()
        self._origins: KeyedLocks[tuple[str, str]] = KeyedLocks()  # by origin and room
        self._rooms_in_work: KeyedLocks[str] = KeyedLocks()

    async def put(self, origin: str, pdus: Sequence[msgspec.Raw]) -> dict[str, Outcome]:
        """Take events in; by event id what became of each.

        Raises `LimitExceeded` where the server has too many in work, and `Unavailable` while the
        database is away: then the other server sends all of it again.
        """
        if self._in_work[origin] + len(pdus) > MAX_IN_WORK:
            raise LimitExceeded(RETRY_MS)
        self._in_work[origin] += len(pdus)
        try:
            by_room: dict[str, list[ReceivedPdu]] = {}
            for pdu in map(read_pdu, pdus):
                if pdu is not None and (room_id := room_id_of(pdu.value)) is not None:
                    by_room.setdefault(room_id, []).append(pdu)
            batches = [
                Deferred.fromCoroutine(self._in_turn(origin, room_id, batch))
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
            self._in_work[origin] -= len(pdus)
            if not self._in_work[origin]:
                del self._in_work[origin]

    async def _in_turn(
        self, origin: str, room_id: str, pdus: Sequence[ReceivedPdu]
    ) -> dict[str, Outcome]:
        try:
            async with self._origins.hold((origin, room_id)):
                return await self._room(origin, room_id, pdus)
        except Unavailable:
            raise
        except Exception:
            # The others in the transaction are not to blame; this room's may be sent again.
            log.failure("events of {room} from {origin} failed", room=room_id, origin=origin)
            return {}

    async def _room(
        self, origin: str, room_id: str, pdus: Sequence[ReceivedPdu]
    ) -> dict[str, Outcome]:
        try:
            room = await self._access.present(origin, room_id)
        except Unavailable:
            raise
        except MatrixError as error:
            await self._withdrawals.receive(room_id, pdus)
            return _all_refused(pdus, await self._version(room_id), str(error))
        checked = await self._checks.check(room.version, room_id, pdus)
        batch = _Batch(origin)
        for pdu, outcome in zip(pdus, checked, strict=True):
            if isinstance(outcome, str):
                batch.drop(pdu.event_id(room.version), outcome)
        log_dropped(room_id, batch.dropped)
        events = [outcome for outcome in checked if isinstance(outcome, Event)]
        async with self._rooms.writing(room_id) as writer:
            events = [event for event in events if await self._is_let_in(batch, writer, event)]
            async with self._rooms_in_work.hold(room_id):
                waiting = await self._receive_known(batch, writer, events)
            if waiting:
                await self._receive_others(batch, writer, waiting)
            # What was handed to the log last is durable last.
            if batch.done is not None:
                await batch.done
        return batch.outcomes

    async def _is_let_in(self, batch: _Batch, writer: RoomWriter, event: Event) -> bool:
        if event.sender_server == batch.origin or await self._access.is_allowed(
            event.sender_server, writer.room
        ):
            return True
        batch.refuse(event, "the room's access list keeps the sender's server out")
        return False

    async def _receive_known(
        self, batch: _Batch, writer: RoomWriter, events: Sequence[Event]
    ) -> Sequence[Event]:
        """Receive events up to the first that cites what is not here; that one and what follows.

        Nobody else is asked for anything, so that this is a matter of a moment.
        """
        if len(events) > 1:
            await self._missing.look_up(writer, events)
        for place, event in enumerate(events):
            try:
                batch.take(event, await self._missing.receive_complete(writer, event))
            except EventsMissing:
                # Who sent them has put them in this order.
                return events[place:]
        return ()

    async def _receive_others(
        self, batch: _Batch, writer: RoomWriter, events: Sequence[Event]
    ) -> None:
        """Receive events with what they cite, for which their origin is asked, for some time.

        Other servers' events are received meanwhile.
        """
        fetching = self._missing.within(self._rooms.local_server.clock, FETCH_SECONDS)
        await fetching.fill_in(batch.origin, writer, events)
        for event in events:
            try:
                received = await fetching.receive_with_auth(batch.origin, writer, event)
            except EventsMissing as error:
                batch.refuse(event, f"what it cites cannot be had: {error}")
            except FederationError as error:
                log.info("{event} cannot be received: {error}", event=event, error=error)
                batch.refuse(event, "what it cites cannot be had")
            else:
                batch.take(event, received)

    async def _version(self, room_id: str) -> RoomVersion | None:
        room = await self._rooms.find(room_id)
        return None if room is None else room.version


def _all_refused(
    pdus: Sequence[ReceivedPdu], version: RoomVersion | None, why: str
) -> dict[str, Outcome]:
    if version is None:
        return {}
    ids = [pdu.event_id(version) for pdu in pdus]
    return {event_id: {"error": why} for event_id in ids if event_id is not None}

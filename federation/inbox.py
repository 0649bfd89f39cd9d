"""What other servers send: each room takes its events one after the other, and waits for no other.

A room whose events need much that is missing holds up its own events alone. A server may have a
bounded number of events in work; beyond that it is told to come again later.

Spec: https://spec.matrix.org/v1.19/server-server-api/#pdus
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
from twisted.internet.defer import Deferred, DeferredList
from twisted.logger import Logger

from federation.errors import FederationError
from federation.missing_events import MissingEvents
from federation.pdus import PduChecks, ReceivedPdu, log_dropped, read_pdu, room_id_of
from federation.room_access import RoomAccess
from federation.withdrawals import Withdrawals
from homeserver.protocol.errors import LimitExceeded, MatrixError, Unavailable
from homeserver.protocol.events import Event
from homeserver.protocol.room_versions import RoomVersion
from homeserver.rooms.judging import EventsMissing
from homeserver.rooms.rooms import Rooms
from homeserver.rooms.writer import RoomWriter

MAX_IN_WORK = 500  # events of one server
RETRY_MS = 5_000

Outcome = dict[str, str]  # `{}`, or `{"error": why it is not accepted}`
log = Logger()


class Inbox:
    """Takes events of other servers in."""

    def __init__(
        self,
        rooms: Rooms,
        access: RoomAccess,
        checks: PduChecks,
        missing: MissingEvents,
        withdrawals: Withdrawals,
    ) -> None:
        self._rooms = rooms
        self._access = access
        self._checks = checks
        self._missing = missing
        self._withdrawals = withdrawals
        self._in_work: Counter[str] = Counter()
        self._queues: dict[str, Deferred[None]] = {}  # room -> fires when its last batch is done

    async def take(self, origin: str, pdus: Sequence[msgspec.Raw]) -> dict[str, Outcome]:
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
        before = self._queues.get(room_id)
        done: Deferred[None] = Deferred()
        self._queues[room_id] = done
        try:
            if before is not None:
                await before
            return await self._room(origin, room_id, pdus)
        except Unavailable:
            raise
        except Exception:
            # The others in the transaction are not to blame; this room's may be sent again.
            log.failure("events of {room} from {origin} failed", room=room_id, origin=origin)
            return {}
        finally:
            if self._queues.get(room_id) is done:
                del self._queues[room_id]
            done.callback(None)

    async def _room(
        self, origin: str, room_id: str, pdus: Sequence[ReceivedPdu]
    ) -> dict[str, Outcome]:
        try:
            room = await self._access.present(origin, room_id)
        except Unavailable:
            raise
        except MatrixError as error:
            await self._withdrawals.take(room_id, pdus)
            return _all_refused(pdus, await self._version(room_id), str(error))
        outcomes: dict[str, Outcome] = {}
        dropped: list[str] = []
        checked = await self._checks.check(room.version, room_id, pdus)
        done: Deferred[None] | None = None
        async with self._rooms.writing(room_id) as writer:
            events = [outcome for outcome in checked if isinstance(outcome, Event)]
            if len(events) > 1:
                await self._missing.look_up(writer, events)
            for pdu, outcome in zip(pdus, checked, strict=True):
                if isinstance(outcome, Event):
                    answer, last = await self._event(origin, writer, outcome)
                    outcomes[outcome.event_id], done = answer, last or done
                else:
                    dropped.append(outcome)
                    if (event_id := pdu.event_id(room.version)) is not None:
                        outcomes.setdefault(event_id, {"error": outcome})
            log_dropped(room_id, dropped)
            # What was handed to the log last is durable last.
            if done is not None:
                await done
        return outcomes

    async def _event(
        self, origin: str, writer: RoomWriter, event: Event
    ) -> tuple[Outcome, Deferred[None] | None]:
        """What became of an event, and when that is durable."""
        if event.sender_server != origin and not await self._access.is_allowed(
            event.sender_server, writer.room
        ):
            return {"error": "the room's access list keeps the sender's server out"}, None
        try:
            received = await self._missing.receive(origin, writer, event)
        except EventsMissing as error:
            return {"error": f"what it cites cannot be had: {error}"}, None
        except FederationError as error:
            log.info("{event} cannot be received: {error}", event=event, error=error)
            return {"error": "what it cites cannot be had"}, None
        standing = received.stored.standing
        if refusal := standing.rejected or standing.soft_failed:
            # It was dealt with, and need not be sent again.
            log.info("{event} is refused: {why}", event=event, why=refusal)
        return {}, received.done

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

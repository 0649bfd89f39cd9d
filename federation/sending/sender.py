"""The federation sender: reads the log, and puts what others must know into their outboxes.

An event goes to the servers of all members that are joined once it has happened, and to that of a
member whom it concerns. It is a durable reader: the position up to which everything was received,
or noted as lacking, is kept in the database, and what came after it is put into the outboxes again
at a start. A server that gets an event twice knows it by its id.

Spec: https://spec.matrix.org/v1.19/server-server-api/#transactions
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.logger import Logger

from federation.sending.destination_queue import DestinationQueue, QueuedPdu, SendContext
from federation.transport.client import FederationClient
from federation.transport.destination_health import DestinationHealth
from federation.transport.permitted_servers import PermittedServers
from homeserver.concurrency.clock import Clock, wall_seconds
from homeserver.concurrency.periodic import PeriodicTask
from homeserver.protocol.event_kinds import is_member_event
from homeserver.protocol.events import Event
from homeserver.protocol.identifiers import is_valid_server_name
from homeserver.rooms.room.changes import EventAppended, RedactionPending
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room
from homeserver.storage.database.database import Database
from homeserver.storage.federation import outbox as storage
from homeserver.storage.rooms.events_at_start import events_since
from homeserver.streams.log import Log

MAX_CONCURRENT_DESTINATIONS = 100  # destinations that are sent to at the same time
MAX_UNPROVEN = 40  # of those that have never answered
MOVE_SECONDS = 1.0
MAX_REPLAYED = 10_000  # events of before a start that are looked at again

_Told = EventAppended | RedactionPending  # others judge for themselves what to withhold
log = Logger()


@dataclass(frozen=True, slots=True)
class SendingRecorded:
    """What was sent was noted. No reader needs to know."""

    position: int


class Sender:
    """Tells other servers. `apply` is to be subscribed to the log, after the rooms."""

    def __init__(
        self,
        client: FederationClient,
        destinations: DestinationHealth,
        permitted: PermittedServers,
        rooms: RoomRegistry,
        log: Log,
        db: Database,
        clock: Clock,
    ) -> None:
        self._permitted = permitted
        self._rooms = rooms
        self._db = db
        self._log = log
        self._clock = clock
        self._queues: dict[str, DestinationQueue] = {}
        self._seen = 0  # position up to which the log was read
        self._moved = 0  # position that was noted last
        self._moving = PeriodicTask(
            clock, MOVE_SECONDS, self._move, name="noting how far events were sent"
        )
        self._replaying = True
        self._missed: list[_Told] = []
        transactions = count()
        prefix = int(wall_seconds(clock) * 1000)
        self._ways = SendContext(
            client,
            destinations,
            self,
            rooms.local_server,
            clock,
            DeferredSemaphore(MAX_CONCURRENT_DESTINATIONS),
            DeferredSemaphore(MAX_UNPROVEN),
            lambda: f"{prefix}_{next(transactions)}",
        )
        destinations.subscribe(self._wake)

    async def start(self) -> None:
        """Go on where the last process ended."""
        position = await self._db.run(storage.outbox_position)
        for destination in await self._db.run(storage.destinations_behind):
            outbox = DestinationQueue(destination, self._ways, is_behind=True)
            self._queues[destination] = outbox
            outbox.wake()
        if position is not None:
            await self._replay(position)
        self._replaying = False
        self._seen = max(self._seen, self._log.position)
        missed, self._missed = self._missed, []
        for fact in missed:
            self._put(fact)
        self._moving.start()

    async def stop(self) -> None:
        """Send nothing more; what is not sent is sent after the next start."""
        await self._moving.stop()
        for outbox in self._queues.values():
            await outbox.stop()

    def apply(self, facts: Sequence[Any]) -> None:
        """A reader of the log."""
        for fact in facts:
            if isinstance(fact, _Told):
                self._seen = fact.position
                if fact.should_send and self._replaying:
                    self._missed.append(fact)
                elif fact.should_send:
                    self._put(fact)

    def send_edu(
        self, destinations: Iterable[str], edu_type: str, content: Any, key: object
    ) -> None:
        """Send an EDU to servers, in place of one with this key that still waits."""
        edu = {"edu_type": edu_type, "content": content}
        for destination in destinations:
            if self._is_destination(destination):
                self._queue(destination).put_edu(edu, (edu_type, key))

    def record_missed(self, destination: str, events: Sequence[QueuedPdu]) -> Deferred[None]:
        """Note in which rooms a destination lacks events; see `CatchUpStore`."""
        first: dict[int, int] = {}
        for event in events:
            first.setdefault(event.room, event.position)
        rows = [
            storage.INSERT_OUTBOX_ROOM.row(destination, room, position)
            for room, position in first.items()
        ]
        return self._log.append(SendingRecorded(self._log.next_position()), rows)

    async def newest(self, destination: str, limit: int) -> list[QueuedPdu]:
        """The newest event of ours in each of some rooms; see `CatchUpStore`."""
        # What was noted in this turn is to be found.
        await self._log.flush()
        found: list[QueuedPdu] = []
        gone: list[int] = []
        for number, position in await self._db.run(storage.rooms_behind, destination, limit):
            room = await self._rooms.by_number(number)
            newest = None if room is None else await self._newest_event(room, position)
            if newest is None:
                gone.append(number)
            else:
                found.append(newest)
        if gone:
            await self.mark_caught_up(destination, gone)
        return found

    async def mark_caught_up(self, destination: str, rooms: Sequence[int]) -> None:
        """The destination lacks nothing of these rooms any more; see `CatchUpStore`."""
        await self._db.run(storage.mark_caught_up, destination, rooms)

    async def _newest_event(self, room: Room, position: int) -> QueuedPdu | None:
        is_ours = self._rooms.local_server.is_local
        for stored in reversed(room.timeline):
            place = stored.position or 0
            if place < position:
                break
            if is_ours(stored.event.sender):
                return QueuedPdu(place, room.room_nid, stored.event.json)
        found = await self._rooms.load_events_in_order(room, [position])
        return QueuedPdu(position, room.room_nid, found[0].event.json) if found else None

    async def _replay(self, position: int) -> None:
        """Put what may not have been sent into the outboxes again."""
        for number, event_number in await self._db.run(events_since, position, MAX_REPLAYED):
            room = await self._rooms.by_number(number)
            if room is None:
                continue
            found = await self._rooms.load_events_in_order(room, [event_number])
            for stored in found:
                if self._may_have_to_send(stored.event):
                    pdu = QueuedPdu(stored.position or stored.event_nid, number, stored.event.json)
                    for destination in self._destinations(room, stored.event):
                        self._queue(destination).put(pdu)

    def _may_have_to_send(self, event: Event) -> bool:
        """Whether this server may have been the one to tell the others of an event.

        Users of other servers change their memberships through this one, which is not noted with
        the event. That it is told twice does no harm.
        """
        return self._rooms.local_server.is_local(event.sender) or is_member_event(event)

    def _put(self, fact: _Told) -> None:
        room = self._rooms.loaded(fact.room_nid)
        if room is None:
            return
        event = fact.stored.event
        pdu = QueuedPdu(fact.position, fact.room_nid, event.json)
        for destination in self._destinations(room, event):
            self._queue(destination).put(pdu)

    def _destinations(self, room: Room, event: Event) -> list[str]:
        servers = dict.fromkeys(room.servers)
        if (
            is_member_event(event)
            and event.state_key is not None
            # The invited have been asked already.
            and event.content.get("membership") != "invite"
        ):
            servers[event.state_key.partition(":")[2]] = None
        # The sender's server has what it has signed; that is all but an invite by an address, which
        # any server in the room may redeem in the name of whoever made it.
        if event.sender_server in event.signatures:
            servers.pop(event.sender_server, None)
        return [server for server in servers if self._is_destination(server)]

    def _is_destination(self, server: str) -> bool:
        return (
            server != self._rooms.local_server.server_name
            and is_valid_server_name(server)
            and self._permitted.permits(server)
        )

    def _queue(self, destination: str) -> DestinationQueue:
        outbox = self._queues.get(destination)
        if outbox is None:
            outbox = self._queues[destination] = DestinationQueue(destination, self._ways)
        return outbox

    def _wake(self, server: str) -> None:
        outbox = self._queues.get(server)
        if outbox is not None:
            outbox.wake(despite_pause=True)

    def _move(self) -> None:
        """Note how far everything was sent, and forget idle outboxes."""
        waiting = [
            first
            for outbox in self._queues.values()
            if (first := outbox.first_position) is not None
        ]
        upto = min(waiting, default=self._seen + 1) - 1
        if upto > self._moved:
            self._moved = upto
            row = storage.MOVE_OUTBOX.row(upto)
            self._log.append(SendingRecorded(self._log.next_position()), [row])
        for destination, outbox in list(self._queues.items()):
            if outbox.is_idle:
                del self._queues[destination]

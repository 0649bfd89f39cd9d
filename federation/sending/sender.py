"""The federation sender: reads the log, and puts PDUs and EDUs into the queues of destinations.

A PDU goes to the servers of all members that are joined after it, and to the server of a member
whose membership it changes. The sender is a durable reader of the log, whose position is the one up
to which every PDU was sent, or recorded as missed. After a start all later events are queued again.
A server that gets an event twice recognises it by its id. EDUs that must not be lost are in
outboxes (`edu_outbox.py`).

Spec: https://spec.matrix.org/v1.19/server-server-api/#transactions
"""

import secrets
from collections.abc import Awaitable, Iterable, Iterator, Sequence
from itertools import count
from typing import Any

import msgspec
from msgspec.structs import replace
from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.logger import Logger

from federation.sending.destination_queue import DestinationQueue, QueuedPdu, SendContext
from federation.sending.edu_outbox import EduOutbox
from federation.sending.missed_events import MissedEvents, first_part, rooms_missed
from federation.sending.server_joins import ServerJoined
from federation.transport.client import FederationClient
from federation.transport.destination_health import DestinationHealth
from federation.transport.permitted_servers import PermittedServers
from homeserver.concurrency.clock import Clock
from homeserver.concurrency.cooperative import CHECK_EVERY_ITEMS, TimeSlice
from homeserver.concurrency.periodic import PeriodicTask
from homeserver.protocol.event_kinds import is_member_event
from homeserver.protocol.events import Event
from homeserver.protocol.identifiers import is_valid_server_name
from homeserver.rooms.events.imported_events import is_imported
from homeserver.rooms.history.timeline_source import TimelineEvent, load_timeline_events
from homeserver.rooms.room.changes import EventAppended, RedactionPending
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room
from homeserver.rooms.sticky.sticky_events import StickyEvents
from homeserver.storage.database.database import Database
from homeserver.storage.federation import outbox as storage
from homeserver.storage.rooms.timeline_pages import (
    events_between,
    page_end,
    pending_redactions_between,
)
from homeserver.streams.durable_reader import ItemPage
from homeserver.streams.log import Log

MAX_CONCURRENT_DESTINATIONS = 100  # destinations that are sent to at the same time
MAX_UNPROVEN = 40  # of them, those that have never responded
SWEEP_SECONDS = 1.0
PAGE_EVENTS = 500  # of all rooms
log = Logger()

_Outgoing = EventAppended | RedactionPending  # other servers apply redactions by their own rules


class SendingRecorded(msgspec.Struct, frozen=True):
    """The progress of sending was stored. No log subscriber uses it."""

    position: int


class OutgoingSource:
    """The events that this server has to send to others."""

    def __init__(self, db: Database, rooms: RoomRegistry) -> None:
        self._db = db
        self._rooms = rooms
        self._own_server = {rooms.local_server.server_name}

    def select(self, entries: Sequence[Any]) -> Iterator[TimelineEvent]:
        """The events in log entries, without messages that no other server gets."""
        for entry in entries:
            if isinstance(entry, _Outgoing) and entry.should_send and not self._is_local(entry):
                yield TimelineEvent(entry.position, entry.room_nid, entry.stored)

    def _is_local(self, entry: EventAppended | RedactionPending) -> bool:
        """Whether it is a message in a room that is known to have no other servers."""
        if entry.stored.event.state_key is not None:
            return False
        room = self._rooms.loaded(entry.room_nid)
        return (
            room is not None
            and room.partial is None
            and room.joined_servers.keys() <= self._own_server
        )

    async def load(self, after: int, upto: int) -> ItemPage[TimelineEvent]:
        """A page of the events in the database that this server may have had to send.

        Users of other servers change their memberships through this one, which is not stored with
        the event. Sending it twice does no harm.
        """
        end = await self._db.run(page_end, after, upto, PAGE_EVENTS)
        places = await self._db.run(events_between, after, end)
        places += await self._db.run(pending_redactions_between, after, end)
        is_local = self._rooms.local_server.is_local
        found = await load_timeline_events(self._rooms, sorted(places))
        return ItemPage(
            [
                each
                for each in found
                if (is_local(each.stored.event.sender) or is_member_event(each.stored.event))
                and not is_imported(each.stored.event)
            ],
            end,
        )


class Sender:
    """Sends PDUs and EDUs to other servers: `send` is for the reader of `OutgoingSource`.

    `apply` is to be subscribed to the log.
    """

    def __init__(
        self,
        client: FederationClient,
        destinations: DestinationHealth,
        permitted: PermittedServers,
        rooms: RoomRegistry,
        sticky: StickyEvents,
        log: Log,
        db: Database,
        clock: Clock,
        outboxes: Sequence[EduOutbox] = (),
    ) -> None:
        self._clock = clock
        self._health = destinations
        self._outboxes = outboxes
        self._stopped = False
        self._permitted = permitted
        self._rooms = rooms
        self._missed = MissedEvents(db, rooms, sticky)
        self._db = db
        self._log = log
        self._queues: dict[str, DestinationQueue] = {}
        self._sweeping = PeriodicTask(
            clock, SWEEP_SECONDS, self._drop_idle_queues, name="dropping idle queues"
        )
        transactions = count()
        # A server ignores a transaction whose id it has seen before, so no two processes may make
        # the same one, whatever their clocks say.
        prefix = secrets.token_urlsafe(9)
        self._context = SendContext(
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
        """Continue with the destinations that have missed events, or for which EDUs wait."""
        for destination in await self._db.run(storage.destinations_behind):
            self._queue(destination).catch_up()
        for outbox in self._outboxes:
            await self._note_edus([(outbox, each) for each in await outbox.destinations()])
        self._sweeping.start()

    async def stop(self) -> None:
        """Stop sending; what was not sent is sent after the next start."""
        self._stopped = True
        await self._sweeping.stop()
        for queue in self._queues.values():
            await queue.stop()

    @property
    def destinations_with_edus(self) -> int:
        """The number of destinations for which EDUs wait in outboxes."""
        return sum(queue.has_waiting_edus for queue in self._queues.values())

    def apply(self, entries: Sequence[Any]) -> None:
        """Send what was added to outboxes (called by the log)."""
        added = [(outbox, each) for outbox in self._outboxes for each in outbox.select(entries)]
        if added:
            noting = Deferred.fromCoroutine(self._note_edus(added))
            noting.addErrback(lambda failure: log.failure("EDUs wait for a restart", failure))

    async def _note_edus(self, added: Sequence[tuple[EduOutbox, str]]) -> None:
        """Wake the queues of destinations, a few at a time: one user may concern thousands."""
        time_slice = TimeSlice(self._clock)
        for number, (outbox, destination) in enumerate(added, 1):
            if self._stopped:
                return
            if self.is_destination(destination):
                self._queue(destination).note_edus(outbox)
            if number % CHECK_EVERY_ITEMS == 0 and time_slice.is_over:
                await time_slice.next()

    def send(self, outgoing: TimelineEvent) -> Awaitable[None] | None:
        """Put an event into the queues of its destinations."""
        room = self._rooms.loaded(outgoing.room_nid)
        if room is None:
            return self._load_and_send(outgoing)
        event = outgoing.stored.event
        destinations = self._destinations(room, event)
        if destinations:
            pdu = QueuedPdu(outgoing.position, outgoing.room_nid, event.json)
            for destination in destinations:
                self._queue(destination).put(pdu)
        return None

    async def send_sticky(self, joined: ServerJoined) -> None:
        """Send the events that stick in a room to a server that has just joined it.

        Whatever the history visibility: it sees what a user sees who joins.
        """
        server, room = joined.server, await self._rooms.by_number(joined.room_nid)
        if room is None or server not in room.servers or not self.is_destination(server):
            return
        for event in await self._missed.sticky(room, 0):
            queued = replace(event, position=joined.position, sticky_position=event.position)
            self._queue(server).put(queued)

    def first_unsent(self) -> int | None:
        """The position of the oldest event that waits in memory."""
        positions = [queue.first_position for queue in self._queues.values()]
        return min((each for each in positions if each is not None), default=None)

    async def _load_and_send(self, outgoing: TimelineEvent) -> None:
        if await self._rooms.by_number(outgoing.room_nid) is not None:
            self.send(outgoing)

    def send_edu(
        self, destinations: Iterable[str], edu_type: str, content: Any, key: object
    ) -> None:
        """Send an EDU to servers, in place of a waiting one with the same key."""
        edu = {"edu_type": edu_type, "content": content}
        for destination in destinations:
            if self.is_destination(destination):
                self._queue(destination).put_edu(edu, (edu_type, key))

    def is_destination(self, server: str) -> bool:
        """Whether there may be anything to send to a server of this name."""
        return (
            server != self._rooms.local_server.server_name
            and is_valid_server_name(server)
            and self._permitted.permits(server)
        )

    def is_failing(self, server: str) -> bool:
        """Whether the last request to a server failed."""
        return self._health.health_of(server).failures > 0

    def record_missed(self, destination: str, events: Sequence[QueuedPdu]) -> Deferred[None]:
        """Record the rooms in which a destination lacks events; see `CatchUpStore`."""
        rows = [storage.UPSERT_OUTBOX_ROOM.row(destination, *each) for each in rooms_missed(events)]
        return self._log.append(SendingRecorded(self._log.next_position()), rows)

    async def missed(self, destination: str, limit: int) -> list[QueuedPdu]:
        """Events of local users in recorded rooms; see `CatchUpStore`."""
        # What was recorded just now has to be found.
        await self._log.flush()
        found: list[QueuedPdu] = []
        gone: list[int] = []
        for behind in await self._db.run(storage.rooms_behind, destination, limit):
            if len(found) >= limit:
                break
            room = await self._rooms.by_number(behind.room)
            missed = [] if room is None else await self._missed.of_room(room, behind)
            if not missed:
                gone.append(behind.room)
            found += first_part(missed, limit - len(found))
        if gone:
            await self.mark_caught_up(destination, gone)
        return found

    async def mark_caught_up(self, destination: str, rooms: Sequence[int]) -> None:
        """Remove these rooms from the record; see `CatchUpStore`."""
        await self._db.run(storage.mark_caught_up, destination, rooms)

    async def resume_later(self, destination: str, sent: Sequence[QueuedPdu]) -> None:
        """Record where to resume in rooms of which not all was sent; see `CatchUpStore`."""
        for pdu in sent:
            assert pdu.resume_at is not None, "it is the last of its room that was sent"
            await self._db.run(storage.resume_sticky, destination, pdu.room, pdu.resume_at)

    def _destinations(self, room: Room, event: Event) -> list[str]:
        servers = dict.fromkeys(room.servers)
        if (
            is_member_event(event)
            and event.state_key is not None
            # The server of an invited user has already received the invite.
            and event.content.get("membership") != "invite"
        ):
            servers[event.state_key.partition(":")[2]] = None
        # The sender's server has what it has signed: everything but an invite by an address, which
        # any server in the room may redeem in the name of its sender.
        if event.sender_server in event.signatures:
            servers.pop(event.sender_server, None)
        return [server for server in servers if self.is_destination(server)]

    def _queue(self, destination: str) -> DestinationQueue:
        queue = self._queues.get(destination)
        if queue is None:
            queue = self._queues[destination] = DestinationQueue(destination, self._context)
        return queue

    def _wake(self, server: str) -> None:
        queue = self._queues.get(server)
        if queue is not None:
            queue.wake(despite_pause=True)

    def _drop_idle_queues(self) -> None:
        for destination, queue in list(self._queues.items()):
            if queue.is_idle:
                del self._queues[destination]

"""The join of a room through other servers: its state is stored first, then the join event.

The state and its auth chain are stored as outliers: their place in the graph is not known. The join
event is the only forward extremity; the events before it are backward extremities, which can be
backfilled.

If the members were left out of the state, the room can be used nevertheless, and is recorded as
partial (`homeserver/rooms/room/partial_state.py`) in the same commit as the join.

Spec: https://spec.matrix.org/v1.19/server-server-api/#joining-rooms
"""

from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from functools import partial

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from homeserver.concurrency.cooperative import run_maybe_in_thread
from homeserver.concurrency.thread_pools import ThreadPool
from homeserver.protocol.errors import Forbidden
from homeserver.protocol.event_graph import authorised_among, authorities_beyond, in_auth_order
from homeserver.protocol.events import Event
from homeserver.rooms.events.stored_event import ACCEPTED, StoredEvent
from homeserver.rooms.inbound.received_event import ReceivedEvent
from homeserver.rooms.inbound.receiver import PduReceiver
from homeserver.rooms.resolution.resolver import ResolvedState
from homeserver.rooms.room.changes import PartialRoomJoined, PartialRoomReplaced
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room
from homeserver.rooms.room.writer import RoomWriter
from homeserver.storage.rooms.partial_rooms import DELETE_PARTIAL_ROOM, partial_room_row
from homeserver.streams.log import Log

FETCH_ROUNDS = 5

Fetch = Callable[[RoomWriter, Collection[str]], Awaitable[list[Event]]]
"""Fetches events of a room by their ids, as far as they are available."""

log = Logger()


class RemoteJoin:
    """Admits rooms with the join event of a local user."""

    def __init__(
        self, log: Log, threads: ThreadPool, rooms: RoomRegistry, receiver: PduReceiver
    ) -> None:
        self._log = log
        self._threads = threads
        self._rooms = rooms
        self._receiver = receiver

    async def admit(
        self,
        join: Event,
        state: Collection[Event],
        auth_chain: Iterable[Event],
        servers: Sequence[str] | None = None,
        fetch: Fetch | None = None,
    ) -> StoredEvent:
        """Join the room by an event, given the state before it, and the auth chain of that.

        If members were left out of the state, `servers` are those that are in the room. All events
        were checked. `fetch` may fetch referenced events that were not given; events that are not
        authorised even then are left out of the state. Returns when it is durable. Raises
        `Forbidden` if the rules do not allow the join in this state, and `EventsMissing` if the
        rest of the state does not authorise the join.
        """
        async with self._rooms.entering(join.room_id, join.version) as writer:
            events = await self._authorised(writer, [*auth_chain, *state], fetch)
            await self._receiver.outliers(writer, events)
            kept = {event.event_id for event in events}
            ids = [event.event_id for event in state if event.event_id in kept]
            resolved = await self._receiver.state_of(writer, ids)
            received, recorded = await self._receive(writer, join, resolved, servers)
            if received.done is not None:
                await received.done
            if recorded is not None:
                await recorded
            status = received.stored.status
            refusal = status.rejected or status.soft_failed
            if refusal is not None:
                raise Forbidden(f"The room's rules do not allow the join: {refusal}")
            return received.stored

    async def _authorised(
        self, writer: RoomWriter, given: Sequence[Event], fetch: Fetch | None
    ) -> list[Event]:
        """The events that are authorised by others of them, each after its auth events."""
        events, threads = list(given), self._threads
        for rounds_left in range(FETCH_ROUNDS if fetch is not None else 0, -1, -1):
            ordered = await run_maybe_in_thread(threads, in_auth_order, events)
            beyond = await run_maybe_in_thread(threads, authorities_beyond, ordered)
            known = frozenset(await self._receiver.known_among(writer, beyond))
            kept, missing = await run_maybe_in_thread(
                threads, partial(authorised_among, known=known), ordered
            )
            if not missing:
                break
            found = await fetch(writer, missing) if fetch is not None and rounds_left else []
            if not found:
                log.info(
                    "left out {count} events of {room}: {missing} of their auth events could not "
                    "be fetched",
                    count=len(ordered) - len(kept),
                    room=writer.room.room_id,
                    missing=len(missing),
                )
                break
            events += found
        return kept

    async def _receive(
        self,
        writer: RoomWriter,
        join: Event,
        state: ResolvedState,
        servers: Sequence[str] | None,
    ) -> tuple[ReceivedEvent, Deferred[None] | None]:
        """Receive the join; the Deferred fires when the partial state is recorded, if it is new."""
        inbound = writer.inbound
        before = inbound.partial_join
        # Events right after the join must be checked by partial state already.
        inbound.set_partial_join(None if servers is None else join.event_id)
        try:
            received = await self._receiver.receive(
                writer, join, state_before=state, is_remote_join=True
            )
        except BaseException:
            inbound.set_partial_join(before)
            raise
        if received.stored.status != ACCEPTED:
            inbound.set_partial_join(before)
            return received, None
        # Without yielding to the reactor since the join was queued: so it is in the same commit.
        had_partial = before is not None or writer.room.was_left_partial
        return received, self._record(writer.room, join, servers, had_partial=had_partial)

    def _record(
        self, room: Room, join: Event, servers: Sequence[str] | None, *, had_partial: bool
    ) -> Deferred[None] | None:
        number = room.room_nid
        if servers is not None:
            position = self._log.next_position()
            entry = PartialRoomJoined(position, number, join.event_id, tuple(servers))
            return self._log.append(entry, [partial_room_row(number, join.event_id, servers)])
        if had_partial:
            replaced = PartialRoomReplaced(self._log.next_position(), number)
            return self._log.append(replaced, [DELETE_PARTIAL_ROOM.row(number)])
        return None

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
from homeserver.rooms.room.changes import EventsStored
from homeserver.rooms.room.partial_state import PartialState
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.writer import RoomWriter
from homeserver.storage.database.batch import Row
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
            partial = None if servers is None else PartialState(join.event_id, servers)
            received = await self._receive(writer, join, resolved, partial)
            if received.done is not None:
                await received.done
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
        self, writer: RoomWriter, join: Event, state: ResolvedState, partial: PartialState | None
    ) -> ReceivedEvent:
        room, before = writer.room, writer.room.partial
        # Events right after the join must be checked by partial state already.
        _set_partial(writer, partial)
        try:
            received = await self._receiver.receive(
                writer, join, state_before=state, is_remote_join=True
            )
            if received.stored.status != ACCEPTED:
                _set_partial(writer, before)
                return received
        except BaseException:
            _set_partial(writer, before)
            raise
        # Without yielding to the reactor since the join was queued: so it is in the same commit.
        if partial is not None:
            self._write(writer, partial_room_row(room.room_nid, join.event_id, partial.servers))
        elif before is not None or room.was_left_partial:
            self._write(writer, DELETE_PARTIAL_ROOM.row(room.room_nid))
        room.was_left_partial = False
        if before is not None:
            before.finish()
        return received

    def _write(self, writer: RoomWriter, row: Row) -> None:
        position = self._log.next_position()
        self._log.append(EventsStored(position, writer.room.room_nid, ()), [row])


def _set_partial(writer: RoomWriter, partial: PartialState | None) -> None:
    writer.room.partial = partial
    writer.inbound.set_partial(partial is not None)

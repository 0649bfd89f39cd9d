"""Coming into a room that other servers have: its state arrives first, then the event that joins.

The state, and what authorises it, are kept as outliers: where they stand in the graph is not known.
The joining event is the one forward extremity; what came before it is a gap that can be filled.

Where the members were left out of the state, the room stands all the same, and is noted to be
partial (`homeserver/rooms/partial_state.py`) in the same commit as the join.

Spec: https://spec.matrix.org/v1.19/server-server-api/#joining-rooms
"""

from collections.abc import Collection, Iterable, Sequence

from homeserver.protocol.errors import Forbidden
from homeserver.protocol.event_graph import in_auth_order
from homeserver.protocol.events import Event
from homeserver.rooms.partial_state import PartialState
from homeserver.rooms.receiving import Received, Receiving
from homeserver.rooms.resolution import Resolved
from homeserver.rooms.room_facts import EventsKept
from homeserver.rooms.rooms import Rooms
from homeserver.rooms.stored_event import ACCEPTED, StoredEvent
from homeserver.rooms.writer import RoomWriter
from homeserver.storage.batch import Row
from homeserver.storage.partial_rooms import DELETE_PARTIAL_ROOM, partial_room_row
from homeserver.streams.turns import away


class Entrance:
    """Takes rooms in, by an event that lets a user of this server in."""

    def __init__(self, rooms: Rooms, receiving: Receiving) -> None:
        self._rooms = rooms
        self._receiving = receiving

    async def enter(
        self,
        join: Event,
        state: Collection[Event],
        auth_chain: Iterable[Event],
        servers: Sequence[str] | None = None,
    ) -> StoredEvent:
        """Enter the room by a join event, given the state before it, and what authorises that.

        Where members were left out of the state, `servers` are those that are in the room. All
        events were checked. Returns when it is durable. Raises `Forbidden` where the rules refuse
        the join in this state, and `EventsMissing` where the state is incomplete.
        """
        threads = self._rooms.stores.states.threads
        async with self._rooms.entering(join.room_id, join.version) as writer:
            events = await away(threads, in_auth_order, [*auth_chain, *state])
            await self._receiving.outliers(writer, events)
            resolved = await self._receiving.state_of(writer, [event.event_id for event in state])
            partial = None if servers is None else PartialState(join.event_id, servers)
            received = await self._receive(writer, join, resolved, partial)
            if received.done is not None:
                await received.done
            standing = received.stored.standing
            refusal = standing.rejected or standing.soft_failed
            if refusal is not None:
                raise Forbidden(f"The room's own rules refuse the join: {refusal}")
            return received.stored

    async def _receive(
        self, writer: RoomWriter, join: Event, state: Resolved, partial: PartialState | None
    ) -> Received:
        room, before = writer.room, writer.room.partial
        # Whatever comes right after the join must be judged by what is known of the state.
        room.partial, writer.is_partial = partial, partial is not None
        try:
            received = await self._receiving.receive(
                writer, join, state_before=state, is_arrival=True
            )
            if received.stored.standing != ACCEPTED:
                room.partial, writer.is_partial = before, before is not None
                return received
        except BaseException:
            room.partial, writer.is_partial = before, before is not None
            raise
        # In the turn in which the join was queued, so that it is in the same commit.
        if partial is not None:
            self._note(writer, partial_room_row(room.number, join.event_id, partial.servers))
        elif before is not None or room.is_fragment:
            self._note(writer, DELETE_PARTIAL_ROOM.row(room.number))
        room.is_fragment = False
        if before is not None:
            before.over()
        return received

    def _note(self, writer: RoomWriter, row: Row) -> None:
        log = self._rooms.stores.log
        log.append(EventsKept(log.next_position(), writer.room.number, ()), [row])

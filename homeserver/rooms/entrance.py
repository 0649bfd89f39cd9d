"""Coming into a room that other servers have: its state arrives first, then the event that joins.

The state, and what authorises it, are kept as outliers: where they stand in the graph is not known.
The joining event is the one forward extremity; what came before it is a gap that can be filled.

Spec: https://spec.matrix.org/v1.19/server-server-api/#joining-rooms
"""

from collections.abc import Collection, Iterable

from homeserver.protocol.errors import Forbidden
from homeserver.protocol.event_graph import in_auth_order
from homeserver.protocol.events import Event
from homeserver.rooms.receiving import Receiving
from homeserver.rooms.rooms import Rooms
from homeserver.rooms.stored_event import StoredEvent


class Entrance:
    """Takes rooms in, by an event that lets a user of this server in."""

    def __init__(self, rooms: Rooms, receiving: Receiving) -> None:
        self._rooms = rooms
        self._receiving = receiving

    async def enter(
        self, join: Event, state: Collection[Event], auth_chain: Iterable[Event]
    ) -> StoredEvent:
        """Enter the room by a join event, given the state before it, and what authorises that.

        Signatures and hashes are checked. Returns when it is durable. Raises `Forbidden` where the
        rules refuse the join in this state, and `EventsMissing` where the state is incomplete.
        """
        async with self._rooms.entering(join.room_id, join.version) as writer:
            events = in_auth_order([*auth_chain, *state])
            await self._receiving.outliers(writer, events)
            resolved = await self._receiving.state_of(writer, [event.event_id for event in state])
            received = await self._receiving.receive(
                writer, join, state_before=resolved, is_arrival=True
            )
            if received.done is not None:
                await received.done
            refusal = received.stored.standing.rejected
            if refusal is not None:
                raise Forbidden(f"The room's own rules refuse the join: {refusal}")
            return received.stored

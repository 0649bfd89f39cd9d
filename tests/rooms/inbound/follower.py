"""A process that shows a room of another one: it has only the entries that that one published."""

from typing import Any

from homeserver.rooms.events.event_store import EventStore
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.room.changes import (
    EventsStored,
    HistoryImported,
    RoomChange,
    StateChanged,
    with_own_events,
)
from homeserver.rooms.room.room import Room
from homeserver.rooms.state.node_codec import EMPTY
from homeserver.streams.positions import STEP
from tests.rooms.inbound.replica import ENTRY_CODEC, MemoryDatabase, Replica
from tests.streams.entry_strategies import as_values


class Follower:
    """Follows the room of a replica. Some reader holds each event that it has seen."""

    def __init__(self, replica: Replica) -> None:
        room = replica.room
        self.events = EventStore(MemoryDatabase(), 1_000_000)  # type: ignore[arg-type]
        self.room = Room(room.room_nid, room.room_id, room.version, EMPTY)
        self.held: dict[int, StoredEvent] = {}
        self._replica = replica
        self._read = 0

    def read(self) -> None:
        """Apply the entries that were published since the last time."""
        for data in self._replica.published[self._read :]:
            self._apply(ENTRY_CODEC.decode(data))
        self._read = len(self._replica.published)

    def _apply(self, published: Any) -> None:
        entry = with_own_events(published, self.events)
        if isinstance(entry, StateChanged):
            self.room.apply(entry)
            for stored in (getattr(entry, "stored", None), *entry.changes.values()):
                self._keep(stored)
        elif isinstance(entry, RoomChange):
            self.room.follow(entry)
            for stored in (
                entry.events if isinstance(entry, (EventsStored, HistoryImported)) else ()
            ):
                self._keep(stored)

    def _keep(self, stored: StoredEvent | None) -> None:
        if stored is not None:
            self.held[stored.event_nid] = self.events.of_entry(stored)


def shown_by(room: Room) -> dict[str, Any]:
    """All that a room shows, as values."""
    positions = range(0, room.last_position + STEP, STEP)
    shown = vars(room) | {
        "partial": None if room.partial is None else (room.partial.join_id, room.partial.servers),
        "timeline_gaps": [room.timeline_gaps.newest(at) for at in positions],
        "version": room.version.identifier,
        "heroes": None,
    }
    return {name: as_values(value) for name, value in shown.items()}


def events_of(replica: Replica, follower: Follower) -> tuple[dict[int, Any], dict[int, Any]]:
    """The events that the follower holds, as the replica has them, and as the follower has them."""
    own = {event_nid: replica.stores.events.cached(event_nid) for event_nid in follower.held}
    return as_values(own), as_values(follower.held)

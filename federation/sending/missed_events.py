"""The events that a destination has missed, and gets when it can be reached again.

Of each room it gets the newest event of a local user, by which it notices what else it lacks, and
before that all events of local users that stick: it need not ask for those.
"""

from collections.abc import Iterator, Sequence

from msgspec.structs import replace

from federation.sending.destination_queue import QueuedPdu
from homeserver.rooms.events.imported_events import is_imported
from homeserver.rooms.events.stored_event import ACCEPTED
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room
from homeserver.rooms.sticky.sticky_events import StickyEvents
from homeserver.storage.database.database import Database
from homeserver.storage.federation.outbox import RoomBehind
from homeserver.storage.rooms.timeline_pages import event_entered


class MissedEvents:
    """Finds them."""

    def __init__(self, db: Database, rooms: RoomRegistry, sticky: StickyEvents) -> None:
        self._db = db
        self._rooms = rooms
        self._sticky = sticky

    async def of_room(self, room: Room, behind: RoomBehind) -> list[QueuedPdu]:
        """The events of a room that a destination has missed, in the order of the log."""
        missed = await self.sticky(room, behind.sticky_from)
        if behind.position is not None:
            newest = await self._newest(room, behind.position)
            if newest is not None and all(newest.json != each.json for each in missed):
                missed.append(newest)
        return missed

    async def sticky(self, room: Room, position: int) -> list[QueuedPdu]:
        """The events of local users that stick in a room, from a position on."""
        events = self._sticky.local(room.room_nid, position - 1)
        if not events:
            return []
        found = await self._rooms.load_events(room, [each.event_nid for each in events])
        return [
            QueuedPdu(each.position, room.room_nid, stored.event.json)
            for each in events
            if (stored := found.get(each.event_nid)) is not None
            and stored.status == ACCEPTED
            and stored.sticky_until is not None
        ]

    async def _newest(self, room: Room, position: int) -> QueuedPdu | None:
        """The newest event of a local user, or that at the position."""
        is_local = self._rooms.local_server.is_local
        for stored in reversed(room.timeline):
            place = stored.position or 0
            if place < position:
                break
            if is_local(stored.event.sender) and not is_imported(stored.event):
                return QueuedPdu(place, room.room_nid, stored.event.json)
        event_nid = await self._db.run(event_entered, room.room_nid, position)
        if event_nid is None:
            return None
        found = await self._rooms.load_events_in_order(room, [event_nid])
        return QueuedPdu(position, room.room_nid, found[0].event.json) if found else None


def first_part(missed: Sequence[QueuedPdu], number: int) -> list[QueuedPdu]:
    """The first of the events of a room; the last of them says where the rest begins."""
    part = list(missed[:number])
    if len(missed) > number:
        part[-1] = replace(part[-1], resume_at=missed[number].position)
    return part


def rooms_missed(events: Sequence[QueuedPdu]) -> Iterator[tuple[int, int | None, int]]:
    """(room, position, sticky position) from which on a destination lacks events, as `RoomBehind`.

    A sticky event that is sent because the destination has joined says nothing of other events.
    """
    rooms: dict[int, tuple[int | None, int]] = {}
    for event in events:
        sticky_from = event.position if event.sticky_position is None else event.sticky_position
        position = event.position if event.sticky_position is None else None
        known, known_sticky = rooms.get(event.room, (None, sticky_from))
        rooms[event.room] = position if known is None else known, min(known_sticky, sticky_from)
    for room, (position, sticky_from) in rooms.items():
        yield room, position, sticky_from

"""Jumping to a date: the event of a room whose timestamp is the closest.

Timestamps are what senders say, so they follow the order of the room's history only roughly, and no
index has them. The place where they pass the wanted one is found by halving; around it the closest
event that the reader may see is chosen by the timestamps themselves.

Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidtimestamp_to_event
"""

from homeserver.protocol.errors import NotFound
from homeserver.rooms.reading import Access, Reading
from homeserver.rooms.room import Room
from homeserver.rooms.rooms import Rooms
from homeserver.rooms.stored_event import StoredEvent
from homeserver.rooms.visibility import Visibility
from homeserver.storage import event_pages
from homeserver.storage import events as storage
from homeserver.storage.database import Database
from homeserver.streams.tokens import Place

NEIGHBOURS = 50  # events on the far side of the place that may be out of order
CHUNK = 100
MAX_CHUNKS = 10
FOREVER = 1 << 62
START: Place = (0, 0)
END: Place = (FOREVER, FOREVER)


class Timestamps:
    """Finds events by their timestamps, on behalf of users."""

    def __init__(
        self, db: Database, rooms: Rooms, reading: Reading, visibility: Visibility
    ) -> None:
        self._db = db
        self._rooms = rooms
        self._reading = reading
        self._visibility = visibility

    async def closest(
        self, user_id: str, room_id: str, timestamp: int, *, backwards: bool
    ) -> StoredEvent:
        """The first event at or after a time (ms since the epoch), or the last at or before it.

        Raises `Forbidden` where the user may not read the room, `NotFound` where there is no event.
        """
        access = await self._reading.access(user_id, room_id)
        # Searching backwards, events of that very time lie before the place.
        place = await self._place(access, timestamp + 1 if backwards else timestamp)
        rows = await self._rows(access.room, place, NEIGHBOURS, not backwards)
        candidates = await self._seen(access, rows)
        for _ in range(MAX_CHUNKS):
            rows = await self._rows(access.room, place, CHUNK, backwards)
            candidates += await self._seen(access, rows)
            chosen = _choose(candidates, timestamp, backwards)
            if chosen is not None:
                return chosen
            if len(rows) < CHUNK:
                break
            depth, position, _ = rows[-1]
            place = (depth, position - 1) if backwards else (depth, position)
        raise NotFound(f"There is no event {'before' if backwards else 'after'} {timestamp}")

    async def _place(self, access: Access, timestamp: int) -> Place:
        """The place before the first event with this timestamp or a later one."""
        room = access.room
        low, high = 0, min(room.last_position, access.until) + 1
        first: StoredEvent | None = None
        while low < high:
            middle = (low + high) // 2
            stored = await self._last(room, middle)
            if stored is not None and stored.event.origin_server_ts >= timestamp:
                first = stored
                high = stored.position or 0
            else:
                low = middle + 1
        return END if first is None else (first.height, (first.position or 0) - 1)

    async def _last(self, room: Room, position: int) -> StoredEvent | None:
        """The last event of the timeline up to a position of the log."""
        if position > room.timeline_from:
            for stored in reversed(room.timeline):
                if (stored.position or 0) <= position:
                    return stored
        rows = await self._db.run(storage.newest_events, room.number, 1, position)
        numbers = [event for _, event in rows]
        events = await self._rooms.stores.events.load_in_order(room.version, numbers)
        return events[0] if events else None

    async def _rows(
        self, room: Room, place: Place, size: int, backwards: bool
    ) -> list[tuple[int, int, int]]:
        """(depth, position, event) of the next events from a place, nearest first."""
        page = event_pages.page_backwards if backwards else event_pages.page_forwards
        bound = START if backwards else END
        return await self._db.run(
            page, room.number, place, size, bound, above=-FOREVER, upto=FOREVER
        )

    async def _seen(self, access: Access, rows: list[tuple[int, int, int]]) -> list[StoredEvent]:
        """Those of the events that the user may see."""
        numbers = [event for _, _, event in rows]
        events = await self._rooms.stores.events.load_in_order(access.room.version, numbers)
        reachable = [stored for stored in events if access.includes(stored)]
        seen = await self._visibility.visible(access.room, access.user_id, reachable)
        return [each.stored for each in seen]


def _choose(candidates: list[StoredEvent], timestamp: int, backwards: bool) -> StoredEvent | None:
    """The closest on the wanted side; of several with one timestamp that nearest to the place."""

    def order(stored: StoredEvent) -> tuple[int, int, int]:
        return stored.event.origin_server_ts, stored.height, stored.position or 0

    if backwards:
        before = [each for each in candidates if each.event.origin_server_ts <= timestamp]
        return max(before, key=order, default=None)
    after = [each for each in candidates if each.event.origin_server_ts >= timestamp]
    return min(after, key=order, default=None)

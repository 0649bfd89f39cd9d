"""Events by timestamp ("jump to date"): the event of a room closest to a time.

Timestamps are set by senders, so they follow the order of the room's history only roughly, and no
index has them. A binary search finds the place where they pass the requested time; around it the
closest event that the reader may see is chosen by the timestamps themselves. If history is missing
at that place, other servers are asked for a closer one.

Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidtimestamp_to_event
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import msgspec

from homeserver.protocol.errors import NotFound
from homeserver.rooms.events.imported_events import is_imported
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.history.room_reader import ReadAccess, RoomReader
from homeserver.rooms.history.visibility import Visibility
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room
from homeserver.storage.database.database import Database
from homeserver.storage.rooms import event_pages
from homeserver.streams.positions import MAX_POSITION
from homeserver.streams.tokens import END, START, Place

NEIGHBOURS = 50  # events beyond the place, which may be out of order
BATCH_SIZE = 100
MAX_BATCHES = 10


class TimestampRequest(msgspec.Struct, frozen=True):
    """A time in ms since the epoch, and the direction to search in."""

    timestamp: int
    backwards: bool

    def is_closer(self, timestamp: int, than: int | None) -> bool:
        """Whether a time is in the requested direction, and closer than another that is."""
        if self.backwards:
            return timestamp <= self.timestamp and (than is None or timestamp > than)
        return timestamp >= self.timestamp and (than is None or timestamp < than)

    def choose(self, candidates: Sequence[StoredEvent]) -> StoredEvent | None:
        """The closest in the requested direction; of several with one timestamp the nearest."""

        def order(stored: StoredEvent) -> tuple[int, int, int]:
            return stored.event.origin_server_ts, stored.topological_depth, stored.position or 0

        there = [each for each in candidates if self.is_closer(each.event.origin_server_ts, None)]
        nearest = max if self.backwards else min
        return nearest(there, key=order, default=None)


class RemoteTimestampsPort(Protocol):
    """Searches the parts of rooms' histories that are missing here on other servers."""

    async def find(
        self, room: Room, moment: TimestampRequest, closer_than: int | None
    ) -> StoredEvent | None:
        """An event, now stored here, that is closer to the requested time than `closer_than`."""


class _View(msgspec.Struct, frozen=True):
    """A room up to a position of the log, and a function for the visible ones of its events."""

    room: Room
    until: int
    seen: Callable[[Sequence[StoredEvent]], Awaitable[list[StoredEvent]]]


class _Found(msgspec.Struct, frozen=True):
    """The event found here, and whether history is missing at the place."""

    event: StoredEvent | None
    at_gap: bool


class Timestamps:
    """Finds events by their timestamps, on behalf of users and of other servers."""

    def __init__(
        self,
        db: Database,
        rooms: RoomRegistry,
        reader: RoomReader,
        visibility: Visibility,
        remote: RemoteTimestampsPort,
    ) -> None:
        self._db = db
        self._rooms = rooms
        self._reader = reader
        self._visibility = visibility
        self._remote = remote

    async def closest(self, user_id: str, room_id: str, moment: TimestampRequest) -> StoredEvent:
        """The first event at or after a time, or the last at or before it.

        Raises `Forbidden` if the user may not read the room, `NotFound` if there is no event.
        """
        access = await self._reader.access(user_id, room_id)
        view = self._view_of_user(access)
        found = await self._search(view, moment)
        chosen = found.event
        if found.at_gap:
            than = None if chosen is None else chosen.event.origin_server_ts
            closer = await self._remote.find(access.room, moment, than)
            if closer is not None and await view.seen([closer]):
                chosen = closer
        return _found(chosen, moment)

    async def closest_for_server(
        self, room: Room, server: str, moment: TimestampRequest
    ) -> StoredEvent:
        """As `closest`, of the events that a server in the room may see, without asking others."""

        async def seen(events: Sequence[StoredEvent]) -> list[StoredEvent]:
            visible = await self._visibility.seen_by_server(room, server, events)
            return [stored for stored, may_see in zip(events, visible, strict=True) if may_see]

        return _found((await self._search(_View(room, MAX_POSITION, seen), moment)).event, moment)

    def _view_of_user(self, access: ReadAccess) -> _View:
        async def seen(events: Sequence[StoredEvent]) -> list[StoredEvent]:
            reachable = [stored for stored in events if access.includes(stored)]
            visible = await self._visibility.visible(access.room, access.user_id, reachable)
            return [each.stored for each in visible]

        return _View(access.room, access.until, seen)

    async def _search(self, view: _View, moment: TimestampRequest) -> _Found:
        backwards = moment.backwards
        # Searching backwards, events of exactly that time are before the place.
        place = await self._place(view, moment.timestamp + 1 if backwards else moment.timestamp)
        beyond = await self._rows(view, place, NEIGHBOURS, not backwards)
        candidates = await self._seen(view, beyond)
        rows = await self._rows(view, place, BATCH_SIZE, backwards)
        at_gap = _is_gap_between(view.room, *((rows, beyond) if backwards else (beyond, rows)))
        for _ in range(MAX_BATCHES):
            candidates += await self._seen(view, rows)
            chosen = moment.choose(candidates)
            if chosen is not None or len(rows) < BATCH_SIZE:
                return _Found(chosen, at_gap)
            depth, position, _ = rows[-1]
            place = (depth, position - 1) if backwards else (depth, position)
            rows = await self._rows(view, place, BATCH_SIZE, backwards)
        return _Found(None, at_gap)

    async def _place(self, view: _View, timestamp: int) -> Place:
        """The place before the first event with this timestamp or a later one."""
        low, high = await self._least_depth(view), await self._greatest_depth(view) + 1
        first: StoredEvent | None = None
        while low < high:
            middle = (low + high) // 2
            stored = await self._last(view, middle)
            if stored is not None and stored.event.origin_server_ts >= timestamp:
                first = stored
                high = stored.topological_depth
            else:
                low = middle + 1
        if first is None:
            return END
        first = await self._first_of_imported(view, first, timestamp)
        return first.topological_depth, (first.position or 0) - 1

    async def _first_of_imported(
        self, view: _View, found: StoredEvent, timestamp: int
    ) -> StoredEvent:
        """The first with this timestamp or a later one of the events imported before another.

        They have its depth, and may be many. It is the other one if none is so late.
        """
        depth = found.topological_depth
        rows = await self._rows(view, (depth - 1, MAX_POSITION), 1, backwards=False)
        if not rows or rows[0][0] != depth:
            return found
        low, high = rows[0][1], min(found.position or 0, 0)
        while low < high:
            middle = (low + high) // 2
            stored = await self._last_before(view, (depth, middle))
            assert stored is not None, "the first of them is there"
            if stored.event.origin_server_ts >= timestamp:
                found = stored
                high = stored.position or 0
            else:
                low = middle + 1
        return found

    async def _least_depth(self, view: _View) -> int:
        """The depth from which on timestamps grow: imported events are older than the room."""
        place = await self._db.run(event_pages.first_message, view.room.room_nid)
        if place is None or place[1] > 0:
            return 0
        first = await self._last_before(view, place)
        return place[0] if first is not None and is_imported(first.event) else 0

    async def _greatest_depth(self, view: _View) -> int:
        rows = await self._rows(view, END, 1, backwards=True)
        return rows[0][0] if rows else 0

    async def _last(self, view: _View, depth: int) -> StoredEvent | None:
        """The last event of the history up to a depth."""
        return await self._last_before(view, (depth, MAX_POSITION))

    async def _last_before(self, view: _View, place: Place) -> StoredEvent | None:
        """The last event of the history up to a place."""
        rows = await self._rows(view, place, 1, backwards=True)
        events = await self._load(view, rows)
        return events[0] if events else None

    async def _rows(
        self, view: _View, place: Place, size: int, backwards: bool
    ) -> list[tuple[int, int, int]]:
        """(depth, position, event) of the next events from a place, nearest first."""
        return await self._db.run(
            event_pages.page,
            view.room.room_nid,
            place,
            START if backwards else END,
            size,
            backwards=backwards,
            above=-MAX_POSITION,
            upto=view.until,
            past_above=MAX_POSITION,
        )

    async def _load(self, view: _View, rows: Sequence[tuple[int, int, int]]) -> list[StoredEvent]:
        numbers = [event for _, _, event in rows]
        return await self._rooms.load_events_in_order(view.room, numbers)

    async def _seen(self, view: _View, rows: Sequence[tuple[int, int, int]]) -> list[StoredEvent]:
        """Those of the events that the reader may see."""
        return await view.seen(await self._load(view, rows))


def _is_gap_between(
    room: Room, before: Sequence[tuple[int, int, int]], after: Sequence[tuple[int, int, int]]
) -> bool:
    """Whether events are missing between the nearest before a place and the nearest after it."""
    lower = before[0][0] if before else 0
    upper = after[0][0] if after else MAX_POSITION
    return any(lower < depth <= upper for depth in room.backward_extremities.values())


def _found(chosen: StoredEvent | None, moment: TimestampRequest) -> StoredEvent:
    if chosen is None:
        way = "before" if moment.backwards else "after"
        raise NotFound(f"No event {way} {moment.timestamp}")
    return chosen

"""The ancestors of events in the graph, for other servers.

Spec: https://spec.matrix.org/v1.19/server-server-api/#backfilling-and-retrieving-missing-events
"""

from collections.abc import Collection, Sequence
from heapq import heappop, heappush

from homeserver.rooms.events.imported_events import is_imported
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room


class EventAncestors:
    """Walks the event graph back from some events."""

    def __init__(self, rooms: RoomRegistry) -> None:
        self._rooms = rooms

    async def up_to(self, room: Room, event_ids: Sequence[str], limit: int) -> list[StoredEvent]:
        """These events and their ancestors, the deepest first."""
        return await self._back(room, event_ids, limit, stop_at=(), min_depth=0)

    async def between(
        self,
        room: Room,
        earliest: Collection[str],
        latest: Sequence[str],
        limit: int,
        min_depth: int,
    ) -> list[StoredEvent]:
        """The ancestors of the latest events that are not ancestors of the earliest, the oldest
        first.

        Neither the latest nor the earliest are included; of more than `limit` the newest are
        returned.
        """
        ends = await self._load(room, latest)
        before = [prev for stored in ends for prev in stored.event.prev_event_ids]
        stop_at = {*earliest, *latest}
        found = await self._back(
            room,
            [prev for prev in before if prev not in stop_at],
            limit,
            stop_at=stop_at,
            min_depth=min_depth,
        )
        return found[::-1]

    async def _back(
        self,
        room: Room,
        event_ids: Sequence[str],
        limit: int,
        *,
        stop_at: Collection[str],
        min_depth: int,
    ) -> list[StoredEvent]:
        found: list[StoredEvent] = []
        seen = {*event_ids, *stop_at}
        heap: list[tuple[int, int, StoredEvent]] = []
        level = list(event_ids)
        while len(found) < limit:
            for stored in await self._load(room, level):
                if stored.event.depth >= min_depth and not stored.status.is_outlier:
                    heappush(heap, (-stored.event.depth, -stored.event_nid, stored))
            if not heap:
                break
            stored = heappop(heap)[2]
            found.append(stored)
            level = [prev for prev in stored.event.prev_event_ids if prev not in seen]
            seen.update(level)
        return [stored for stored in found if stored.status.rejected is None]

    async def _load(self, room: Room, event_ids: Sequence[str]) -> list[StoredEvent]:
        if not event_ids:
            return []
        found = await self._rooms.find_events(room, event_ids)
        return [stored for stored in found.values() if not is_imported(stored.event)]

"""Recent events: the newest events in all rooms of a user that the user could see.

These are the events sent while they were in the room, and their invites.
"""

from collections.abc import Sequence

import msgspec

from homeserver.protocol.event_kinds import is_member_event
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.history.visibility import Visibility, VisibleEvent
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room
from homeserver.rooms.room.user_rooms import UserRooms
from homeserver.storage.database.database import Database
from homeserver.storage.rooms.events import events_after
from homeserver.storage.rooms.newest_events import newest_events_in


class Chunk(msgspec.Struct, frozen=True):
    """Events with their rooms, newest first unless it says otherwise.

    `next` is the position to continue from, if any.
    """

    events: Sequence[tuple[Room, VisibleEvent]]
    next: int | None


class RecentEvents:
    """Walks back through the events of a user's rooms."""

    def __init__(
        self, db: Database, rooms: RoomRegistry, user_rooms: UserRooms, visibility: Visibility
    ) -> None:
        self._db = db
        self._rooms = rooms
        self._user_rooms = user_rooms
        self._visibility = visibility

    async def chunk(self, user_id: str, upto: int, size: int) -> Chunk:
        """The events that the user could see, of the newest `size` up to a position of the log."""
        rows = await self._db.run(newest_events_in, await self._rooms_of(user_id), upto, size)
        found = await self._visible(user_id, rows)
        return Chunk(found, rows[-1][0] - 1 if len(rows) == size else None)

    async def chunk_after(self, user_id: str, after: int, upto: int, size: int) -> Chunk:
        """The same of the oldest `size` after a position, oldest first; `next` is to be passed."""
        rooms = await self._rooms_of(user_id)
        rows = await self._db.run(events_after, rooms, after, upto, size)
        found = await self._visible(user_id, rows)
        return Chunk(found, rows[-1][0] if len(rows) == size else None)

    async def _rooms_of(self, user_id: str) -> list[int]:
        memberships = await self._user_rooms.of(user_id)
        return [
            room_nid
            for room_nid, place in memberships.items()
            if place.membership in ("join", "invite")
        ]

    async def _visible(
        self, user_id: str, rows: Sequence[tuple[int, int, int]]
    ) -> list[tuple[Room, VisibleEvent]]:
        """The events in (position, room, event) that the user could see."""
        by_room: dict[int, list[int]] = {}
        for _, room_nid, event in rows:
            by_room.setdefault(room_nid, []).append(event)
        found: dict[int, tuple[Room, VisibleEvent]] = {}
        for room_nid, events in by_room.items():
            room = await self._rooms.by_number(room_nid)
            if room is not None:
                for seen in await self._seen(room, user_id, events):
                    found[seen.stored.event_nid] = (room, seen)
        return [found[event] for _, _, event in rows if event in found]

    async def _seen(self, room: Room, user_id: str, numbers: list[int]) -> list[VisibleEvent]:
        events = await self._rooms.load_events_in_order(room, numbers)
        invites = [VisibleEvent(stored, "invite") for stored in events if _invites(stored, user_id)]
        others = [stored for stored in reversed(events) if not _invites(stored, user_id)]
        visible = await self._visibility.visible(room, user_id, others)
        return invites + [seen for seen in visible if seen.membership == "join"]


def _invites(stored: StoredEvent, user_id: str) -> bool:
    event = stored.event
    return is_member_event(event, user_id) and event.content.get("membership") == "invite"

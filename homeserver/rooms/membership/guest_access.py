"""Guest access: guests leave when a room no longer allows guests.

A durable reader of the log does this. When `m.room.guest_access` stops saying `can_join`, each
joined local guest gets a member event with `leave`, sent as the guest: the server has no power in
the room, and every user may leave.

Spec: https://spec.matrix.org/v1.19/client-server-api/#guest-access
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from homeserver.protocol.event_types import GUEST_ACCESS, GUEST_ACCESS_KEY
from homeserver.rooms.membership.forced_leaves import ForcedLeaves
from homeserver.rooms.room.changes import EventAppended, StateChanged
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room
from homeserver.storage.accounts.users import guests_among
from homeserver.storage.database.database import Database
from homeserver.storage.rooms.timeline_pages import events_between, page_end, resolutions_between
from homeserver.streams.durable_reader import ItemPage

PAGE_EVENTS = 5_000  # of all rooms


class GuestAccessChanged(msgspec.Struct, frozen=True):
    """The guest access of a room may have changed."""

    position: int
    room_nid: int


class GuestAccessSource:
    """The changes of guest access in all rooms."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def select(self, entries: Sequence[Any]) -> Iterator[GuestAccessChanged]:
        """The changes in log entries."""
        for entry in entries:
            if isinstance(entry, StateChanged) and GUEST_ACCESS_KEY in entry.changes:
                # A room's first log entry has a version: no guest can be in the room yet.
                is_new = isinstance(entry, EventAppended) and entry.version is not None
                if not is_new:
                    yield GuestAccessChanged(entry.position, entry.room_nid)

    async def load(self, after: int, upto: int) -> ItemPage[GuestAccessChanged]:
        """A page of the changes in the database; each resolution of a state may be one."""
        end = await self._db.run(page_end, after, upto, PAGE_EVENTS)
        places = await self._db.run(events_between, after, end, GUEST_ACCESS.encode())
        found = [(position, room_nid) for position, room_nid, _ in places]
        found += await self._db.run(resolutions_between, after, end)
        # One check of a room is enough: it is for the present state.
        newest = {room_nid: position for position, room_nid in sorted(found)}
        changes = sorted((position, room_nid) for room_nid, position in newest.items())
        return ItemPage([GuestAccessChanged(*change) for change in changes], end)


class GuestAccess:
    """Removes guests from rooms."""

    def __init__(self, db: Database, rooms: RoomRegistry, forced_leaves: ForcedLeaves) -> None:
        self._db = db
        self._rooms = rooms
        self._forced_leaves = forced_leaves

    async def remove_guests(self, change: GuestAccessChanged) -> None:
        """Remove the guests of a room, unless it allows guests again."""
        room = await self._rooms.by_number(change.room_nid)
        if room is None or await self._admits_guests(room):
            return
        local = [
            user_id
            for user_id in room.joined_members()
            if self._rooms.local_server.is_local(user_id)
        ]
        for user_id in await self._db.run(guests_among, local):
            await self._forced_leaves.leave(room.room_id, user_id)

    async def _admits_guests(self, room: Room) -> bool:
        """Whether the room allows guests."""
        stored = (await self._rooms.current(room, [GUEST_ACCESS_KEY])).get(GUEST_ACCESS_KEY)
        return stored is not None and admits_guests(stored.shown.content)


def admits_guests(content: Mapping[str, Any]) -> bool:
    """Whether a room with this `m.room.guest_access` allows guests."""
    return content.get("guest_access") == "can_join"

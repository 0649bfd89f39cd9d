"""Bump stamps: when there was last activity in a room that people care about.

A bump stamp is the position of the newest such event without the bits of the process that made it,
so that it is an integer in JSON.

Spec: MSC4186
"""

from collections.abc import Iterable
from itertools import takewhile

from homeserver.concurrency.lru_cache import LruCache
from homeserver.protocol.event_kinds import BUMP_TYPES, is_bump
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.room.room import Room
from homeserver.storage.database.database import Database
from homeserver.storage.rooms.names import Names
from homeserver.storage.rooms.newest_events import newest_event_of_types
from homeserver.streams.positions import SLOT_BITS

MAX_ROOMS = 50_000  # in memory
MAX_EXAMINED_EVENTS = 2_000  # that are looked through in the database


def bump_stamp_at(position: int) -> int:
    """The bump stamp of an event at a position."""
    return position >> SLOT_BITS


def newest_bump(events: Iterable[StoredEvent]) -> int | None:
    """The position of the first of some events, newest first, that bumps a room."""
    for stored in events:
        if stored.position is not None and is_bump(stored.event):
            return stored.position
    return None


class BumpStamps:
    """Finds the bump stamps of rooms."""

    def __init__(self, db: Database, names: Names) -> None:
        self._db = db
        self._names = names
        # By room: the position of the newest bump up to another position.
        self._rooms: LruCache[int, tuple[int, int]] = LruCache("bump_stamps", MAX_ROOMS)

    async def of(self, room: Room) -> int:
        """The bump stamp of a room, as of now; that of its oldest known event if it has none."""
        last = room.last_position
        bump, upto = self._rooms.get(room.room_nid) or (0, 0)
        if upto < last:
            newer = takewhile(
                lambda stored: (stored.position or 0) > upto, reversed(tuple(room.timeline))
            )
            found = newest_bump(newer)
            if found is None and upto < room.timeline_from:
                found = await self._find(room, upto)
            bump = bump if found is None else found
            self._rooms.put(room.room_nid, (bump, last))
        return bump_stamp_at(bump)

    async def _find(self, room: Room, upto: int) -> int | None:
        """The newest bump above `upto` that is older than the events in memory."""
        nids = list((await self._names.find_nids(BUMP_TYPES)).values())
        return await self._db.run(
            newest_event_of_types,
            room.room_nid,
            nids,
            upto,
            room.timeline_from,
            MAX_EXAMINED_EVENTS,
        )

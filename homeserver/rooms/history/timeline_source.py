"""Timeline events for durable readers: from the log, or from the database if a reader is behind."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
from twisted.logger import Logger

from homeserver.protocol.errors import Unavailable
from homeserver.protocol.events import Event
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.room.changes import EventAppended
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.storage.database.database import Database, DatabaseUnavailable
from homeserver.storage.rooms.timeline_pages import events_between, page_end
from homeserver.streams.durable_reader import ItemPage

PAGE_EVENTS = 500  # of all rooms, whether a reader wants them or not
log = Logger()


class TimelineEvent(msgspec.Struct, frozen=True):
    """An event in the timeline of a room, at its position in the log."""

    position: int
    room_nid: int
    stored: StoredEvent


class TimelineSource:
    """The timeline events for which `is_wanted(event)` is true.

    `word` is in the JSON of all of them, so that the database need not give all others.
    """

    def __init__(
        self, db: Database, rooms: RoomRegistry, is_wanted: Callable[[Event], bool], word: str = ""
    ) -> None:
        self._db = db
        self._rooms = rooms
        self._is_wanted = is_wanted
        self._word = word.encode()

    def select(self, entries: Sequence[Any]) -> Iterator[TimelineEvent]:
        """The wanted events of log entries."""
        for entry in entries:
            if isinstance(entry, EventAppended) and self._is_wanted(entry.stored.event):
                yield TimelineEvent(entry.position, entry.room_nid, entry.stored)

    async def load(self, after: int, upto: int) -> ItemPage[TimelineEvent]:
        """A page of the wanted events from the database."""
        end = await self._db.run(page_end, after, upto, PAGE_EVENTS)
        places = await self._db.run(events_between, after, end, self._word)
        found = await load_timeline_events(self._rooms, places)
        return ItemPage([each for each in found if self._is_wanted(each.stored.event)], end)


async def load_timeline_events(
    rooms: RoomRegistry, places: Sequence[tuple[int, int, int]]
) -> list[TimelineEvent]:
    """The events with these (position, room, event), as far as they are stored."""
    by_room: dict[int, list[int]] = {}
    for _, room_nid, event_nid in places:
        by_room.setdefault(room_nid, []).append(event_nid)
    stored: dict[int, StoredEvent] = {}
    for room_nid, event_nids in by_room.items():
        try:
            room = await rooms.by_number(room_nid)
            if room is not None:
                stored |= await rooms.load_events(room, event_nids)
        except (Unavailable, DatabaseUnavailable):
            raise
        except Exception:
            # A room that cannot be read must not keep a reader from all others.
            log.failure("a reader skips events of the room with nid {room}", room=room_nid)
    return [
        TimelineEvent(position, room_nid, stored[event_nid])
        for position, room_nid, event_nid in places
        if event_nid in stored
    ]

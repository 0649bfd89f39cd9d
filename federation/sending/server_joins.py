"""Servers that join rooms in which events of local users stick: the items of a durable reader.

Spec: https://github.com/matrix-org/matrix-spec-proposals/pull/4354
"""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from homeserver.protocol.event_kinds import is_member_event
from homeserver.protocol.events import Event
from homeserver.rooms.history.timeline_source import TimelineEvent, load_timeline_events
from homeserver.rooms.room.changes import EventAppended
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room
from homeserver.rooms.sticky.sticky_events import StickyEvents
from homeserver.storage.database.database import Database
from homeserver.storage.rooms.timeline_pages import events_between, page_end
from homeserver.streams.durable_reader import ItemPage

PAGE_EVENTS = 500  # of all rooms
MAX_COMPARED = 20  # members of a server: with more, it was in the room before


class ServerJoined(msgspec.Struct, frozen=True):
    """A server joined a room at a position of the log."""

    position: int
    room_nid: int
    server: str


class ServerJoins:
    """Finds the joins."""

    def __init__(self, db: Database, rooms: RoomRegistry, sticky: StickyEvents) -> None:
        self._db = db
        self._rooms = rooms
        self._sticky = sticky

    def select(self, entries: Sequence[Any]) -> Iterator[ServerJoined]:
        """The joins in log entries."""
        for entry in entries:
            if not isinstance(entry, EventAppended) or entry.room_nid not in self._sticky.rooms:
                continue
            if is_join(entry.stored.event) and self._sticky.local(entry.room_nid):
                join = TimelineEvent(entry.position, entry.room_nid, entry.stored)
                yield from self._joined(join)

    async def load(self, after: int, upto: int) -> ItemPage[ServerJoined]:
        """A page of the joins in the database."""
        end = await self._db.run(page_end, after, upto, PAGE_EVENTS)
        if not self._sticky.rooms:
            return ItemPage([], end)
        places = [
            place
            for place in await self._db.run(events_between, after, end, b"m.room.member")
            if self._sticky.local(place[1])
        ]
        found = await load_timeline_events(self._rooms, places)
        joins = [each for each in found if is_join(each.stored.event)]
        return ItemPage([item for each in joins for item in self._joined(each)], end)

    def _joined(self, join: TimelineEvent) -> Iterator[ServerJoined]:
        """The server of a join, unless it was in the room before."""
        room, event = self._rooms.loaded(join.room_nid), join.stored.event
        server, replaced = server_of(event), join.stored.replaced
        if self._rooms.local_server.server_name == server:
            return
        if replaced is not None and replaced.content.get("membership") == "join":
            return
        if room is None or is_first_of_server(room, server, join.stored.event_nid):
            yield ServerJoined(join.position, join.room_nid, server)


def is_join(event: Event) -> bool:
    """Whether an event has a user join, or says something new of one who has."""
    return is_member_event(event) and event.content.get("membership") == "join"


def server_of(event: Event) -> str:
    """The server of the user that a member event is about."""
    return (event.state_key or "").partition(":")[2]


def is_first_of_server(room: Room, server: str, event_nid: int) -> bool:
    """Whether no user of a server joined a room before a join with this nid.

    A member who has changed their name since seems to have joined later: then the server gets again
    what it has, which does no harm.
    """
    number = room.joined_servers[server]
    if number <= 1 or number > MAX_COMPARED:
        return number <= 1
    return all(
        nid >= event_nid
        for user_id, nid in room.member_events.items()
        if user_id.endswith(f":{server}") and room.members[user_id] == "join"
    )

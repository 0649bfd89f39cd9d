"""What is decided about: events of timelines, and invites to rooms that this server is not in."""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from homeserver.push.pushers.directory import PusherDirectory
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.history.timeline_source import load_timeline_events
from homeserver.rooms.room.changes import EventAppended, OutOfRoomMembershipChanged
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.storage.database.database import Database
from homeserver.storage.rooms.timeline_pages import (
    events_between,
    out_of_room_invites_between,
    page_end,
)
from homeserver.streams.durable_reader import ItemPage

PAGE_EVENTS = 500  # of all rooms


class PushItem(msgspec.Struct, frozen=True):
    """An event that may have to be pushed.

    `invited` is the user who is invited by it to a room that this server is not in. `is_redaction`
    says that it redacted an event that may have been pushed.
    """

    position: int
    room_nid: int
    stored: StoredEvent
    invited: str | None = None
    is_redaction: bool = False


class PushItemSource:
    """The items of the durable reader of pushes."""

    def __init__(self, db: Database, rooms: RoomRegistry, directory: PusherDirectory) -> None:
        self._db = db
        self._rooms = rooms
        self._directory = directory

    def select(self, entries: Sequence[Any]) -> Iterator[PushItem]:
        """The items of published entries."""
        users = self._directory.users
        if not users:
            return
        for entry in entries:
            if isinstance(entry, EventAppended):
                yield PushItem(
                    entry.position,
                    entry.room_nid,
                    entry.stored,
                    is_redaction=entry.redacts is not None,
                )
            elif (
                isinstance(entry, OutOfRoomMembershipChanged)
                and entry.membership == "invite"
                and entry.user_id in users
            ):
                yield PushItem(entry.position, entry.room, entry.stored, entry.user_id)

    async def load(self, after: int, upto: int) -> ItemPage[PushItem]:
        """A page of the items from the database."""
        end = await self._db.run(page_end, after, upto, PAGE_EVENTS)
        if not self._directory.users:
            return ItemPage([], end)
        places = await self._db.run(events_between, after, end)
        found = await load_timeline_events(self._rooms, places)
        items = [PushItem(each.position, each.room_nid, each.stored) for each in found]
        invites = await self._db.run(out_of_room_invites_between, after, end)
        for each in await load_timeline_events(self._rooms, invites):
            invited = each.stored.event.state_key or ""
            if invited in self._directory.users:
                items.append(PushItem(each.position, each.room_nid, each.stored, invited))
        return ItemPage(sorted(items, key=lambda item: item.position), end)

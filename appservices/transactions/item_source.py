"""Where the reader of an application service gets its items: the feed, or the database.

What only concerns the present (typing, receipts, presence, key counts) is not read from the
database.
"""

from collections.abc import Sequence
from typing import Any

from appservices.transactions.feed import Feed, joins
from appservices.transactions.items import (
    DeviceListItem,
    EventItem,
    ItemGroup,
    ToDeviceItem,
    TransactionItem,
    grouped,
)
from appservices.transactions.room_interest import PastInterest
from homeserver.accounts.appservices.appservices import Appservices
from homeserver.protocol.appservices.appservice import Appservice
from homeserver.rooms.history.timeline_source import TimelineEvent, load_timeline_events
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.user_rooms import UserRooms
from homeserver.storage.appservices.backlog import messages_between, remote_invites_between
from homeserver.storage.database.database import Database
from homeserver.storage.encryption.device_lists import device_lists_between
from homeserver.storage.rooms.timeline_pages import events_between, page_end
from homeserver.streams.durable_reader import ItemPage

PAGE_EVENTS = 500  # of all rooms
MAX_MESSAGES = 300  # to devices, in one page
MAX_DEVICE_LISTS = 1_000  # in one page


class AppserviceItemSource:
    """The items of one application service."""

    def __init__(
        self,
        appservice_id: str,
        appservices: Appservices,
        db: Database,
        rooms: RoomRegistry,
        user_rooms: UserRooms,
        feed: Feed,
        past_interest: PastInterest,
    ) -> None:
        self._id = appservice_id
        self._appservices = appservices
        self._db = db
        self._rooms = rooms
        self._user_rooms = user_rooms
        self._feed = feed
        self._past_interest = past_interest

    def select(self, entries: Sequence[Any]) -> Sequence[ItemGroup]:
        """The items of published entries."""
        return self._feed.items_of(self._id, entries)

    async def load(self, after: int, upto: int) -> ItemPage[ItemGroup]:
        """A page of items from the database."""
        service = self._appservices.by_id(self._id)
        if service is None:
            return ItemPage((), upto)
        upto = await self._db.run(page_end, after, upto, PAGE_EVENTS)
        items: list[TransactionItem] = []
        if service.receives_encryption or service.receives_ephemeral:
            rows, upto = await self._db.run(messages_between, self._id, after, upto, MAX_MESSAGES)
            items += [ToDeviceItem(*row) for row in rows]
        if service.receives_encryption:
            lists = await self._db.run(device_lists_between, after, upto, MAX_DEVICE_LISTS)
            if len(lists) == MAX_DEVICE_LISTS:
                upto = lists[-1].position
                items = [each for each in items if each.position <= upto]
            for row in lists:
                joined = tuple(await self._user_rooms.joined(row.user_id))
                items.append(DeviceListItem(row.position, row.user_id, joined, is_certain=False))
        items += await self._events(service, after, upto)
        return ItemPage(grouped(items), upto)

    async def _events(self, service: Appservice, after: int, upto: int) -> list[TransactionItem]:
        places = await self._db.run(events_between, after, upto)
        items: list[TransactionItem] = []
        for found in await load_timeline_events(self._rooms, places):
            if await self._is_interested(service, found):
                items.append(EventItem(found.position, found.stored))
                event = found.stored.event
                if service.receives_encryption and joins(event):
                    user_id = event.state_key or ""
                    items.append(DeviceListItem(found.position, user_id, (), is_certain=True))
        invites = await self._db.run(remote_invites_between, after, upto)
        items += [
            EventItem(found.position, found.stored)
            for found in await load_timeline_events(self._rooms, invites)
            if service.covers_user(found.stored.event.state_key or "")
        ]
        return items

    async def _is_interested(self, service: Appservice, found: TimelineEvent) -> bool:
        room = await self._rooms.by_number(found.room_nid)
        return room is not None and await self._past_interest.was_interested(
            service, room, found.stored
        )

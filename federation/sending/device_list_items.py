"""What makes other servers need device lists of local users: the items of a durable reader.

Devices of a local user change, or a room brings local users and servers together: a local user
joins, the first user of a server joins, or the full state of a room becomes known.

Spec: https://spec.matrix.org/v1.19/server-server-api/#device-management
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from homeserver.encryption.changes import DeviceListChanged
from homeserver.protocol.event_kinds import is_member_event
from homeserver.protocol.event_types import MEMBER
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.history.timeline_source import load_timeline_events
from homeserver.rooms.room.changes import RoomUnPartialStated, StateChanged, membership_of
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.storage.database.database import Database
from homeserver.storage.encryption.device_lists import DeviceListRow, device_lists_between
from homeserver.storage.federation.room_servers import servers_joined_before
from homeserver.storage.rooms.timeline_pages import (
    events_between,
    full_states_between,
    local_joins_between,
    page_end,
)
from homeserver.streams.durable_reader import ItemPage

PAGE_ITEMS = 500  # events of all rooms, or changes of device lists


class OwnListChanged(msgspec.Struct, frozen=True):
    """The device list of a local user changed."""

    position: int
    change: DeviceListRow


class UsersMet(msgspec.Struct, frozen=True):
    """Users joined a room: local ones, and those that are the first of their servers."""

    position: int
    room_nid: int
    user_ids: tuple[str, ...]
    servers: tuple[str, ...]


class MembersKnown(msgspec.Struct, frozen=True):
    """All members of a room that had partial state are known."""

    position: int
    room_nid: int


DeviceListItem = OwnListChanged | UsersMet | MembersKnown


class _Join(msgspec.Struct, frozen=True):
    position: int
    room_nid: int
    user_id: str

    @property
    def server(self) -> str:
        return self.user_id.partition(":")[2]


class DeviceListItems:
    """The items, from log entries or from the database."""

    def __init__(self, db: Database, rooms: RoomRegistry) -> None:
        self._db = db
        self._rooms = rooms
        self._is_local = rooms.local_server.is_local

    def select(self, entries: Sequence[Any]) -> Iterator[DeviceListItem]:
        """The items of log entries."""
        joins: list[_Join] = []
        items: list[DeviceListItem] = []
        for entry in entries:
            if isinstance(entry, DeviceListChanged):
                if self._is_local(entry.user_id):
                    items.append(OwnListChanged(entry.position, _row(entry)))
            elif isinstance(entry, RoomUnPartialStated):
                items.append(MembersKnown(entry.position, entry.room_nid))
            elif isinstance(entry, StateChanged) and entry.changes:
                joins += [
                    _Join(entry.position, entry.room_nid, user_id)
                    for user_id, _, stored in entry.members()
                    if _is_new_join(stored)
                ]
        items += self._meetings(joins, self._first_of_batch(joins))
        return iter(sorted(items, key=lambda item: item.position))

    async def load(self, after: int, upto: int) -> ItemPage[DeviceListItem]:
        """A page of the items in the database."""
        end = await self._db.run(page_end, after, upto, PAGE_ITEMS)
        changes = await self._db.run(device_lists_between, after, end, PAGE_ITEMS)
        if len(changes) == PAGE_ITEMS:
            end = changes[-1].position
        items: list[DeviceListItem] = [
            OwnListChanged(change.position, change)
            for change in changes
            if self._is_local(change.user_id)
        ]
        for position, room_nid in await self._db.run(full_states_between, after, end):
            items.append(MembersKnown(position, room_nid))
        joins = await self._load_joins(after, end)
        servers = {(join.room_nid, join.server) for join in joins}
        rooms = {join.room_nid for join in joins if not self._is_local(join.user_id)}
        if rooms:
            servers -= await self._db.run(servers_joined_before, list(rooms), after)
        items += self._meetings(joins, servers)
        return ItemPage(sorted(items, key=lambda item: item.position), end)

    async def _load_joins(self, after: int, upto: int) -> list[_Join]:
        places = {*await self._db.run(events_between, after, upto, MEMBER.encode())}
        places.update(await self._db.run(local_joins_between, after, upto))
        joins = []
        for found in await load_timeline_events(self._rooms, sorted(places)):
            user_id = found.stored.event.state_key
            if user_id is not None and _is_new_join(found.stored):
                joins.append(_Join(found.position, found.room_nid, user_id))
        return joins

    def _first_of_batch(self, joins: Sequence[_Join]) -> set[tuple[int, str]]:
        """(room, server) of joins that are the first of their server in the room."""
        first: set[tuple[int, str]] = set()
        for (room_nid, server), number in Counter(
            (join.room_nid, join.server) for join in joins
        ).items():
            room = self._rooms.loaded(room_nid)
            # The room shows all of these joins already.
            if room is None or room.joined_servers[server] <= number:
                first.add((room_nid, server))
        return first

    def _meetings(
        self, joins: Sequence[_Join], first: set[tuple[int, str]]
    ) -> Iterator[DeviceListItem]:
        """The joins that matter, in one item for each entry of the log."""
        by_entry: dict[tuple[int, int], list[_Join]] = {}
        for join in joins:
            by_entry.setdefault((join.position, join.room_nid), []).append(join)
        for (position, room_nid), together in by_entry.items():
            local = [join.user_id for join in together if self._is_local(join.user_id)]
            servers = {
                join.server
                for join in together
                if not self._is_local(join.user_id) and (room_nid, join.server) in first
            }
            if local or servers:
                yield UsersMet(position, room_nid, tuple(local), tuple(servers))


def _row(entry: DeviceListChanged) -> DeviceListRow:
    return DeviceListRow(
        entry.user_id, entry.position, entry.stream_id, entry.previous_id, entry.device_id
    )


def _is_new_join(stored: StoredEvent | None) -> bool:
    """Whether a member event is the join of a user who was not joined before it."""
    if stored is None or membership_of(stored) != "join" or not is_member_event(stored.event):
        return False
    before = stored.replaced
    return before is None or before.content.get("membership") != "join"

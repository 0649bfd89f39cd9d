"""The migration of users' settings from a room to the room that replaces it.

A durable reader of the log does this. When a local user joins a room that names a predecessor,
their tags, push rules and similar data are copied from the old room by the functions in
`carry_over`. Any user can name any predecessor, so the old room has to confirm it by its tombstone,
unless the joining user created the new one.

This server's own data of the old room, aliases and the directory entry, is moved too, by the
functions in `move`, if the tombstone confirms the new room. At the server of the user who upgraded
the room all of it has been moved already.

After a crash a join may be handled again: every function has no effect on what is done already.

Spec: https://spec.matrix.org/v1.19/client-server-api/#room-upgrades
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import msgspec

from homeserver.protocol.event_kinds import is_member_event
from homeserver.protocol.event_types import CREATE_KEY, MEMBER, TOMBSTONE_KEY
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.history.timeline_source import load_timeline_events
from homeserver.rooms.room.changes import StateChanged, membership_of
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room
from homeserver.storage.database.database import Database
from homeserver.storage.rooms.timeline_pages import (
    events_between,
    local_joins_between,
    page_end,
)
from homeserver.streams.durable_reader import ItemPage

PAGE_EVENTS = 500  # of all rooms

CarryOver = Callable[[str, str, str], Awaitable[None]]
"""Copies settings of a user (their id) from one room to another (the ids of both)."""

Move = Callable[[Room, Room], Awaitable[None]]
"""Moves this server's data of a room to another one."""


class LocalJoin(msgspec.Struct, frozen=True):
    """A local user joined a room, in which they were not joined before."""

    position: int
    room_nid: int
    user_id: str


class LocalJoins:
    """The joins of local users in all rooms."""

    def __init__(self, db: Database, rooms: RoomRegistry) -> None:
        self._db = db
        self._rooms = rooms

    def select(self, entries: Sequence[Any]) -> Iterator[LocalJoin]:
        """The joins in log entries."""
        for entry in entries:
            if isinstance(entry, StateChanged):
                for user_id, _, stored in entry.members():
                    if self._is_join(user_id, stored):
                        yield LocalJoin(entry.position, entry.room_nid, user_id)

    async def load(self, after: int, upto: int) -> ItemPage[LocalJoin]:
        """A page of the joins in the database: by events, and by resolutions of states."""
        end = await self._db.run(page_end, after, upto, PAGE_EVENTS)
        places = {*await self._db.run(events_between, after, end, MEMBER.encode())}
        places.update(await self._db.run(local_joins_between, after, end))
        joins = []
        for found in await load_timeline_events(self._rooms, sorted(places)):
            user_id = found.stored.event.state_key
            if user_id is not None and self._is_join(user_id, found.stored):
                joins.append(LocalJoin(found.position, found.room_nid, user_id))
        return ItemPage(joins, end)

    def _is_join(self, user_id: str, stored: StoredEvent | None) -> bool:
        """Whether a member event is the join of a local user who was not joined before it."""
        return (
            stored is not None
            and is_member_event(stored.event)
            and membership_of(stored) == "join"
            and self._rooms.local_server.is_local(user_id)
            and not _was_joined(stored)
        )


class UpgradeMigration:
    """Migrates settings."""

    def __init__(
        self, rooms: RoomRegistry, carry_over: Sequence[CarryOver], move: Sequence[Move]
    ) -> None:
        self._rooms = rooms
        self._carry_over = carry_over
        self._move = move

    async def migrate(self, join: LocalJoin) -> None:
        """Migrate the settings of a user who has joined a room, if it replaces another one."""
        room = await self._rooms.by_number(join.room_nid)
        if room is None:
            return
        creator, old = await self._predecessor(room)
        if old is None:
            return
        is_confirmed = await self._is_replaced(old, room)
        if is_confirmed:
            for move in self._move:
                await move(old, room)
        if is_confirmed or creator == join.user_id:
            for carry_over in self._carry_over:
                await carry_over(join.user_id, old.room_id, room.room_id)

    async def _predecessor(self, room: Room) -> tuple[str, Room | None]:
        """The creator of a room, and the room that it says it replaces."""
        create = (await self._rooms.current(room, [CREATE_KEY]))[CREATE_KEY].event
        named = create.content.get("predecessor")
        old_id = named.get("room_id") if isinstance(named, dict) else None
        old = await self._rooms.find(old_id) if isinstance(old_id, str) else None
        return create.sender, old

    async def _is_replaced(self, old: Room, room: Room) -> bool:
        """Whether a room says that another one has replaced it."""
        tombstone = (await self._rooms.current(old, [TOMBSTONE_KEY])).get(TOMBSTONE_KEY)
        return tombstone is not None and (
            tombstone.shown.content.get("replacement_room") == room.room_id
        )


def _was_joined(stored: StoredEvent) -> bool:
    """Whether a member was joined already: a new name makes the same kind of event."""
    before = stored.replaced
    return before is not None and before.content.get("membership") == "join"

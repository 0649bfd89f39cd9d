"""Deletes the device lists of remote users with whom no room is shared any more.

A durable reader of the log does this. From the moment at which a remote user, or the last local
one, leaves the last room that they share, no update arrives: what is stored would be shown as
current after a rejoin. So each leave is examined as of its own position, whatever has happened
since, also after a crash.

Spec: https://spec.matrix.org/v1.19/server-server-api/#device-management
"""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from homeserver.encryption.device_directory import DeviceDirectory
from homeserver.encryption.remote.remote_list_updates import RemoteListUpdates
from homeserver.encryption.remote.shared_users import SharedUsers
from homeserver.protocol.event_kinds import is_member_event
from homeserver.protocol.event_types import MEMBER
from homeserver.rooms.history.timeline_source import load_timeline_events
from homeserver.rooms.room.changes import StateChanged, membership_of
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.storage.database.database import Database
from homeserver.storage.encryption.remote_devices import users_with_lists
from homeserver.storage.rooms.timeline_pages import events_between, page_end, resolutions_between
from homeserver.streams.durable_reader import ItemPage
from homeserver.streams.log import Log

PAGE_EVENTS = 500  # of all rooms


class MembershipEnded(msgspec.Struct, frozen=True):
    """A user is not joined to a room, and may have been before; `None` if it may be any user."""

    position: int
    room_nid: int
    user_id: str | None


class EndedMemberships:
    """The ends of memberships in all rooms."""

    def __init__(self, db: Database, rooms: RoomRegistry) -> None:
        self._db = db
        self._rooms = rooms

    def select(self, entries: Sequence[Any]) -> Iterator[MembershipEnded]:
        """The ends in log entries."""
        for entry in entries:
            if isinstance(entry, StateChanged):
                for user_id, membership, _ in entry.members():
                    if membership != "join":
                        yield MembershipEnded(entry.position, entry.room_nid, user_id)

    async def load(self, after: int, upto: int) -> ItemPage[MembershipEnded]:
        """A page of the ends in the database; each resolution of a state may be one for all."""
        end = await self._db.run(page_end, after, upto, PAGE_EVENTS)
        places = await self._db.run(events_between, after, end, MEMBER.encode())
        ended = [
            MembershipEnded(found.position, found.room_nid, found.stored.event.state_key)
            for found in await load_timeline_events(self._rooms, places)
            if is_member_event(found.stored.event) and membership_of(found.stored) != "join"
        ]
        for position, room_nid in await self._db.run(resolutions_between, after, end):
            ended.append(MembershipEnded(position, room_nid, None))
        ended.sort(key=lambda each: each.position)
        return ItemPage(ended, end)


class UnsharedLists:
    """Deletes lists after the ends of memberships."""

    def __init__(
        self,
        db: Database,
        log: Log,
        rooms: RoomRegistry,
        directory: DeviceDirectory,
        shared: SharedUsers,
        updates: RemoteListUpdates,
    ) -> None:
        self._db = db
        self._log = log
        self._is_local = rooms.local_server.is_local
        self._directory = directory
        self._shared = shared
        self._updates = updates

    async def delete(self, ended: MembershipEnded) -> None:
        """Delete the lists of users with whom no room was shared after a membership ended."""
        # What was stored before the membership ended is then in the database and in the directory;
        # a list that is stored later is from a request that was notified of the end.
        await self._log.written()
        user_id = ended.user_id
        if user_id is not None and not self._is_local(user_id):
            if (await self._directory.of(user_id)).stream_id is not None:
                await self._delete_unless_shared(user_id, ended.position)
            return
        if user_id is not None and await self._shared.was_in(ended.room_nid, ended.position):
            return
        for each in await self._db.run(users_with_lists, ended.room_nid):
            await self._delete_unless_shared(each, ended.position)

    async def _delete_unless_shared(self, user_id: str, position: int) -> None:
        if not await self._shared.shared_at(user_id, position):
            await self._updates.stop_following(user_id)

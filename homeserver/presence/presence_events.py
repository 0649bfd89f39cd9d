"""The presence events of a user: those of users with whom they share a room, and their own.

The last changes are kept in the order of publication, one for each user, so that "what is new since
this token" costs as much as there is new. For an older token the response has all users who are not
offline, and the newest changes of users who went offline meanwhile. A user who has joined a room
since the token gets the presence of its members.

Spec: https://spec.matrix.org/v1.19/client-server-api/#presence
"""

from collections import OrderedDict
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from typing import Any

import msgspec
from msgspec.structs import replace

from homeserver.accounts.sessions.requester import Requester
from homeserver.concurrency.cooperative import build_cooperatively
from homeserver.presence.presence_changed import PresenceChanged, PresenceUpdate
from homeserver.presence.remote_presence import RemotePresence
from homeserver.presence.tracker import PresenceTracker, stored_presence
from homeserver.presence.user_presence import OFFLINE
from homeserver.protocol.errors import Forbidden
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.history.own_membership import was_joined
from homeserver.rooms.room.changes import StateChanged
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room
from homeserver.rooms.room.user_rooms import MemberRooms, Membership, UserRooms
from homeserver.storage.accounts.presence import find_presence, presence_after
from homeserver.storage.database.database import Database
from homeserver.storage.rooms.memberships import joined_rooms_of_all
from homeserver.storage.rooms.names import Names
from homeserver.streams.log import Log
from homeserver.streams.sync_tokens import SyncToken

MAX_CHANGES = 20_000  # users whose last change is kept
SMALL_ROOM = 100  # members, up to which a newcomer gets the presence of all of them
COOPERATE_ABOVE = 200  # events, above which they are encoded in time slices
MAX_MISSED = 5_000  # changes that are read for an old token


_NO_CHANGE = 0, PresenceChanged(0, "", (), OFFLINE, None, 0)
# The membership that stands for peeking into a room.
_PEEKING = Membership("join", 0, 0, "")


class PresenceEvents:
    """Makes presence events. `apply` is to be subscribed to the log, after the tracker's."""

    def __init__(
        self,
        tracker: PresenceTracker,
        remote: RemotePresence,
        db: Database,
        log: Log,
        names: Names,
        rooms: RoomRegistry,
        user_rooms: UserRooms,
    ) -> None:
        self._tracker = tracker
        self._remote = remote
        self._db = db
        self._rooms = rooms
        self._log = log
        self._names = names
        self._user_rooms = user_rooms
        self._is_local = rooms.local_server.is_local
        # Least recently published first, each with the highest position so far; complete above
        # `_floor`.
        self._changes: OrderedDict[str, tuple[int, PresenceChanged]] = OrderedDict()
        self._highest = self._floor = log.position
        self._clock = rooms.local_server.clock
        self._encoded: dict[tuple[str, int, int], msgspec.Raw] = {}  # of this second
        self._encoded_at = 0

    async def start(self) -> None:
        """Load the newest changes, for clients that reconnect after a restart."""
        rows = await self._db.run(presence_after, 0, MAX_CHANGES)
        members = [row.member for row in rows]
        names = await self._names.names(members)
        joined = await self._db.run(joined_rooms_of_all, members)
        newer, self._changes = self._changes, OrderedDict()  # published during the query
        for row in reversed(rows):
            user_id = names[row.member]
            rooms = tuple(joined.get(row.member, ()))
            change = replace(stored_presence(user_id, row), rooms=rooms)
            self._changes[user_id] = change.position, change
        for user_id, published in newer.items():
            self._changes[user_id] = published
            self._changes.move_to_end(user_id)
        self._floor = rows[-1].position if len(rows) == MAX_CHANGES else 0

    def apply(self, entries: Sequence[Any]) -> None:
        """Apply log entries."""
        for entry in entries:
            if isinstance(entry, PresenceChanged):
                self._highest = max(self._highest, entry.position)
                self._changes[entry.user_id] = self._highest, entry
                self._changes.move_to_end(entry.user_id)
            elif isinstance(entry, StateChanged):
                for user_id, membership, stored in entry.members():
                    if membership == "join" and stored is not None:
                        self._publish_newcomer(user_id, entry.room_nid, stored)
        while len(self._changes) > MAX_CHANGES:
            self._floor = self._changes.popitem(last=False)[1][0]

    async def events_since(
        self, user_id: str, since: SyncToken | None, changed: Collection[int] | None = None
    ) -> PresenceUpdate:
        """`m.presence` events of the changes above a token that a user sees, their own included.

        For `since=None` these are of all users who are not offline. `changed` are the rooms, by
        numeric id, in which anything has changed since; without it, all of the user's rooms are
        checked.
        """
        if not self._tracker.enabled:
            return PresenceUpdate((), ())
        memberships = self._user_rooms.loaded(user_id) or await self._user_rooms.of(user_id)
        found: dict[str, PresenceChanged] = {}
        if since is None or since.base < self._floor:
            own = {
                room_nid
                for room_nid, membership in memberships.items()
                if membership.membership == "join"
            }
            if since is not None:
                await self._add_missed(found, user_id, own, since.base)
            self._add_online(found, user_id, own)
        else:
            self._add_changed(found, user_id, memberships, since)
            if changed is None or max(changed, default=0) > 0:  # else no room has changed
                new: set[int] = set()
                async for room in self._newly_joined(user_id, memberships, since, changed):
                    new.add(room.room_nid)
                    self._add_offline(found, user_id, room)
                if new:
                    self._add_online(found, user_id, new)
        encoded = (self._event(change) for change in found.values())
        events = (
            list(encoded)
            if len(found) < COOPERATE_ABOVE
            else await build_cooperatively(self._clock, encoded)
        )
        return PresenceUpdate(events, found.values())

    def only_event_since(
        self, user_id: str, since: SyncToken, rooms: MemberRooms
    ) -> msgspec.Raw | None:
        """The event of the one change above a token, if there is no other and the user sees it.

        `rooms` are all of the user's; they have joined none since. Nothing is read.
        """
        if not self._tracker.enabled or since.base < self._floor:
            return None
        newest = reversed(self._changes.values())
        _, change = next(newest, _NO_CHANGE)
        if next(newest, _NO_CHANGE)[0] > since.base or change.position <= since.base:
            return None
        if change.user_id != user_id and not _is_in_one_of(rooms, self._rooms_of(change)):
            return None
        return self._event(change)

    def events_in(self, room: Room, since: SyncToken) -> PresenceUpdate:
        """The same of the members of one room, for a user who peeks into it."""
        found: dict[str, PresenceChanged] = {}
        if self._tracker.enabled:
            if since.base < self._floor:
                self._add_online(found, "", {room.room_nid})
            else:
                self._add_changed(found, "", {room.room_nid: _PEEKING}, since)
        return PresenceUpdate([self._event(change) for change in found.values()], found.values())

    async def of_members(self, room: Room) -> list[msgspec.Raw]:
        """`m.presence` events of a room's members, in a small room also of offline ones."""
        found: dict[str, PresenceChanged] = {}
        if self._tracker.enabled:
            self._add_online(found, "", {room.room_nid})
            self._add_offline(found, "", room)
        return [self._event(change) for change in found.values()]

    async def get(self, caller: Requester, user_id: str) -> dict[str, Any]:
        """The presence of a user, the response of `GET /presence/{userId}/status`.

        Raises `Forbidden` where the caller shares no room with them.
        """
        if user_id != caller.user_id:
            own = await self._user_rooms.joined(caller.user_id)
            user_rooms = await self._user_rooms.joined(user_id)
            if set(own).isdisjoint(user_rooms):
                raise Forbidden("You are not allowed to see their presence")
        if not self._tracker.enabled:
            return {"presence": OFFLINE}
        tracked = self._tracker.find(user_id)
        now_ms = self._tracker.now_ms()
        if tracked is not None:
            return tracked.published.content(now_ms, tracked.last_active_ms)
        if not self._is_local(user_id):
            change = self._remote.find(user_id)
            return (
                stored_presence(user_id, None).content(now_ms)
                if change is None
                else change.content(now_ms)
            )
        member = await self._names.find_nid(user_id)
        row = None if member is None else await self._db.run(find_presence, member)
        return stored_presence(user_id, row).content(now_ms)

    def _add_online(
        self, found: dict[str, PresenceChanged], observer: str, rooms: set[int]
    ) -> None:
        for user in self._tracker.present():
            if user.user_id == observer or not rooms.isdisjoint(user.rooms):
                found[user.user_id] = user.published
        for change in self._remote.present():
            if not rooms.isdisjoint(change.rooms):
                found[change.user_id] = change

    def _add_offline(self, found: dict[str, PresenceChanged], observer: str, room: Room) -> None:
        """Add local members who are offline, in a small room."""
        if room.joined_count > SMALL_ROOM:
            return
        for user_id in room.joined_members():
            if user_id not in found and user_id != observer and self._is_local(user_id):
                user = self._tracker.find(user_id)
                found[user_id] = stored_presence(user_id, None) if user is None else user.published

    def _publish_newcomer(self, user_id: str, room: int, member: StoredEvent) -> None:
        """Publish the presence of an offline user who joins; the tracker publishes all others."""
        before = member.replaced
        if (
            (before is None or before.content.get("membership") != "join")
            and self._tracker.enabled
            and self._tracker.find(user_id) is None
            and self._is_local(user_id)
        ):
            position = self._log.next_position()
            self._log.append(PresenceChanged(position, user_id, (room,), OFFLINE, None, 0))

    def _add_changed(
        self,
        found: dict[str, PresenceChanged],
        observer: str,
        memberships: MemberRooms,
        since: SyncToken,
    ) -> None:
        for highest, change in reversed(self._changes.values()):
            if highest <= since.base:
                break
            if change.position <= since.of_user(change.user_id):
                continue
            is_own = change.user_id == observer
            if is_own or _is_in_one_of(memberships, self._rooms_of(change)):
                found[change.user_id] = change

    def _rooms_of(self, change: PresenceChanged) -> Iterable[int]:
        """The rooms of the user: those of now if they are tracked, else those of the change."""
        remote = self._remote.find(change.user_id)
        if remote is not None:
            return remote.rooms
        user = self._tracker.find(change.user_id)
        return change.rooms if user is None else user.rooms

    async def _add_missed(
        self, found: dict[str, PresenceChanged], observer: str, rooms: set[int], since: int
    ) -> None:
        rows = await self._db.run(presence_after, since, MAX_MISSED)
        members = [row.member for row in rows]
        names = await self._names.names(members)
        joined = await self._db.run(joined_rooms_of_all, members)
        for row in rows:
            user_id = names[row.member]
            if user_id == observer or not rooms.isdisjoint(joined.get(row.member, ())):
                found[user_id] = stored_presence(user_id, row)

    async def _newly_joined(
        self,
        user_id: str,
        memberships: MemberRooms,
        since: SyncToken,
        changed: Collection[int] | None,
    ) -> AsyncIterator[Room]:
        """The rooms that the user has joined since a token. A profile change is no join."""
        touched = {
            room_nid: membership.event
            for room_nid in (memberships if changed is None else changed)
            if (membership := memberships.get(room_nid)) is not None
            and membership.membership == "join"
            and membership.position > since.of_room(room_nid)
        }
        async for rooms in self._rooms.in_batches(touched):
            await self._rooms.get_events_ready({room: [touched[room.room_nid]] for room in rooms})
            for room in rooms:
                at, event = since.of_room(room.room_nid), touched[room.room_nid]
                if not await was_joined(self._rooms, room, user_id, event, at):
                    yield room

    def _event(self, change: PresenceChanged) -> msgspec.Raw:
        """The event of a change, encoded once a second for all users who get it."""
        user = self._tracker.find(change.user_id)
        now_ms = self._tracker.now_ms()
        if now_ms // 1000 != self._encoded_at:
            self._encoded_at = now_ms // 1000
            self._encoded.clear()
        active = change.last_active_ms if user is None else user.last_active_ms
        key = change.user_id, change.position, active
        event = self._encoded.get(key)
        if event is None:
            event = self._encoded[key] = change.event(now_ms, active)
        return event


def _is_in_one_of(memberships: MemberRooms, rooms: Iterable[int]) -> bool:
    """Whether a user with these memberships is joined to one of the rooms."""
    # Not `any(…)`: each delivery of a change comes by here, mostly with one room.
    for room in rooms:
        membership = memberships.get(room)
        if membership is not None and membership.membership == "join":
            return True
    return False

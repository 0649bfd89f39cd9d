"""What readers see of presence: of those with whom they share a room, and of themselves.

The last changes are kept in the order in which they were told, one for each user, so that "what is
new since this token" costs as much as there is new. A reader whose token is older is told of all
who are there, and of the newest changes of those who went offline meanwhile. Who has joined a room
since their token is told of all who are in it.

Spec: https://spec.matrix.org/v1.19/client-server-api/#presence
"""

from collections import OrderedDict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.concurrency.cooperative import build_cooperatively
from homeserver.presence.presence_changed import PresenceChanged
from homeserver.presence.remote_presence import RemotePresence
from homeserver.presence.tracker import PresenceTracker, seen_by
from homeserver.presence.user_presence import OFFLINE
from homeserver.protocol.errors import Forbidden
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.room.changes import StateChanged
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room
from homeserver.rooms.room.user_rooms import MemberRooms, Membership, UserRooms
from homeserver.storage.accounts.presence import find_presence, presence_after
from homeserver.storage.database.database import Database
from homeserver.storage.rooms.memberships import joined_rooms_of_all

MAX_CHANGES = 20_000  # users whose last change is kept
SMALL_ROOM = 100  # members, up to which a newcomer is told of all of them
COOPERATE_ABOVE = 200  # events, from which on they are made a few at a time
MAX_MISSED = 5_000  # changes that are read for one who was away for long


# The place of somebody who looks into a room from outside.
_PEEKING = Membership("join", 0, 0, "")


class PresenceEvents:
    """Presence for readers. `apply` is to be subscribed to the log, after the tracker's."""

    def __init__(
        self,
        tracker: PresenceTracker,
        remote: RemotePresence,
        db: Database,
        rooms: RoomRegistry,
        user_rooms: UserRooms,
    ) -> None:
        self._tracker = tracker
        self._remote = remote
        self._db = db
        self._rooms = rooms
        self._names = rooms.stores.names
        self._user_rooms = user_rooms
        self._is_ours = rooms.local_server.is_local
        # Least recently changed first, complete above `_floor`.
        self._changes: OrderedDict[str, PresenceChanged] = OrderedDict()
        self._floor = rooms.stores.log.position
        self._clock = rooms.local_server.clock
        self._encoded: dict[tuple[str, int, int], msgspec.Raw] = {}  # of this second
        self._encoded_at = 0

    async def start(self) -> None:
        """Read the newest changes, so that those who come back after a restart find them here."""
        rows = await self._db.run(presence_after, 0, MAX_CHANGES)
        members = [row.member for row in rows]
        names = await self._names.names(members)
        joined = await self._db.run(joined_rooms_of_all, members)
        newer, self._changes = self._changes, OrderedDict()  # came while the database answered
        for row in reversed(rows):
            user_id = names[row.member]
            rooms = tuple(joined.get(row.member, ()))
            self._changes[user_id] = replace(seen_by(user_id, row), rooms=rooms)
        for user_id, change in newer.items():
            self._changes[user_id] = change
            self._changes.move_to_end(user_id)
        self._floor = rows[-1].position if len(rows) == MAX_CHANGES else 0

    def apply(self, facts: Sequence[Any]) -> None:
        """A reader of the log."""
        for fact in facts:
            if isinstance(fact, PresenceChanged):
                self._changes[fact.user_id] = fact
                self._changes.move_to_end(fact.user_id)
            elif isinstance(fact, StateChanged):
                for user_id, membership, stored in fact.members():
                    if membership == "join" and stored is not None:
                        self._show_newcomer(user_id, fact.room_nid, stored)
        while len(self._changes) > MAX_CHANGES:
            self._floor = self._changes.popitem(last=False)[1].position

    async def events_since(
        self, user_id: str, since: int | None, changed: Collection[int] | None = None
    ) -> list[msgspec.Raw]:
        """`m.presence` events of what changed for a reader above a position, their own included.

        For `since=None` these are of all who are not offline. `changed` are the rooms, by number,
        in which anything has changed since; without it, all of the reader's are looked at.
        """
        if not self._tracker.enabled:
            return []
        places = self._user_rooms.loaded(user_id) or await self._user_rooms.of(user_id)
        found: dict[str, PresenceChanged] = {}
        if since is None or since < self._floor:
            own = {number for number, place in places.items() if place.membership == "join"}
            if since is not None:
                await self._add_missed(found, user_id, own, since)
            self._add_present(found, user_id, own)
        else:
            self._add_changed(found, user_id, places, since)
            new = await self._newly_joined(user_id, places, since, changed)
            if new:
                self._add_present(found, user_id, new)
                await self._add_absent(found, user_id, new)
        events = (self._event(told) for told in found.values())
        return (
            list(events)
            if len(found) < COOPERATE_ABOVE
            else await build_cooperatively(self._clock, events)
        )

    def events_in(self, room: Room, since: int) -> list[msgspec.Raw]:
        """The same of the members of one room, for somebody who looks into it from outside."""
        found: dict[str, PresenceChanged] = {}
        if self._tracker.enabled:
            if since < self._floor:
                self._add_present(found, "", {room.room_nid})
            else:
                self._add_changed(found, "", {room.room_nid: _PEEKING}, since)
        return [self._event(told) for told in found.values()]

    async def of_members(self, room: Room) -> list[msgspec.Raw]:
        """`m.presence` events of a room's members, in a small one also of who is offline."""
        found: dict[str, PresenceChanged] = {}
        if self._tracker.enabled:
            self._add_present(found, "", {room.room_nid})
            await self._add_absent(found, "", {room.room_nid})
        return [self._event(told) for told in found.values()]

    async def get(self, caller: Requester, user_id: str) -> dict[str, Any]:
        """The presence of a user, as `GET /presence/{userId}/status` answers it.

        Raises `Forbidden` where the caller shares no room with them.
        """
        if user_id != caller.user_id:
            own = await self._user_rooms.joined(caller.user_id)
            theirs = await self._user_rooms.joined(user_id)
            if set(own).isdisjoint(theirs):
                raise Forbidden("You are not allowed to see their presence")
        if not self._tracker.enabled:
            return {"presence": OFFLINE}
        tracked = self._tracker.find(user_id)
        now_ms = self._tracker.now_ms()
        if tracked is not None:
            return tracked.told.content(now_ms, tracked.last_active_ms)
        if not self._is_ours(user_id):
            told = self._remote.find(user_id)
            return seen_by(user_id, None).content(now_ms) if told is None else told.content(now_ms)
        member = await self._names.find_nid(user_id)
        row = None if member is None else await self._db.run(find_presence, member)
        return seen_by(user_id, row).content(now_ms)

    def _add_present(self, found: dict[str, PresenceChanged], reader: str, rooms: set[int]) -> None:
        for user in self._tracker.present():
            if user.user_id == reader or not rooms.isdisjoint(user.rooms):
                found[user.user_id] = user.told
        for told in self._remote.present():
            if not rooms.isdisjoint(told.rooms):
                found[told.user_id] = told

    async def _add_absent(
        self, found: dict[str, PresenceChanged], reader: str, rooms: set[int]
    ) -> None:
        """Those who are offline, too, in rooms where there are few enough to be looked at."""
        for number in rooms:
            room = await self._rooms.by_number(number)
            if room is None or room.joined_count > SMALL_ROOM:
                continue
            for user_id in room.joined_members():
                if user_id not in found and user_id != reader and self._is_ours(user_id):
                    user = self._tracker.find(user_id)
                    found[user_id] = seen_by(user_id, None) if user is None else user.told

    def _show_newcomer(self, user_id: str, room: int, member: StoredEvent) -> None:
        """Tell a room of somebody who joins it but is offline; of all others the tracker tells."""
        before = member.replaced
        if (
            (before is None or before.content.get("membership") != "join")
            and self._tracker.enabled
            and self._tracker.find(user_id) is None
            and self._is_ours(user_id)
        ):
            log = self._rooms.stores.log
            log.append(PresenceChanged(log.next_position(), user_id, (room,), OFFLINE, None, 0))

    def _add_changed(
        self, found: dict[str, PresenceChanged], reader: str, places: MemberRooms, since: int
    ) -> None:
        for change in reversed(self._changes.values()):
            if change.position <= since:
                break
            user = self._tracker.find(change.user_id)
            # Those who are there may have moved since; of the others this is the last we know.
            remote = self._remote.find(change.user_id)
            theirs = change.rooms if user is None else user.rooms
            theirs = theirs if remote is None else remote.rooms
            if change.user_id == reader or _is_in_one_of(places, theirs):
                found[change.user_id] = change

    async def _add_missed(
        self, found: dict[str, PresenceChanged], reader: str, rooms: set[int], since: int
    ) -> None:
        rows = await self._db.run(presence_after, since, MAX_MISSED)
        members = [row.member for row in rows]
        names = await self._names.names(members)
        joined = await self._db.run(joined_rooms_of_all, members)
        for row in rows:
            user_id = names[row.member]
            if user_id == reader or not rooms.isdisjoint(joined.get(row.member, ())):
                found[user_id] = seen_by(user_id, row)

    async def _newly_joined(
        self, user_id: str, places: MemberRooms, since: int, changed: Collection[int] | None
    ) -> set[int]:
        """Rooms in which the user was not joined at a position, but is now."""
        touched = [
            (number, place.event)
            for number in (list(places) if changed is None else changed)
            if (place := places.get(number)) is not None
            and place.membership == "join"
            and place.position > since
        ]
        return {
            number
            for number, event in touched
            if not await self._was_joined(user_id, number, event, since)
        }

    async def _was_joined(self, user_id: str, number: int, event: int, since: int) -> bool:
        """Goes back through the member events from `event` on, which a new profile also makes."""
        room = await self._rooms.by_number(number)
        if room is not None and since < room.forked_at:
            return await self._rooms.was_joined(room, user_id, since)
        at: int | None = event
        while room is not None and at is not None:
            stored = (await self._rooms.stores.events.load(room.version, [at]))[at]
            if (stored.position or 0) <= since:
                return stored.event.content.get("membership") == "join"
            at = stored.replaces
        return False

    def _event(self, told: PresenceChanged) -> msgspec.Raw:
        """The event, encoded once a second for all who are told."""
        user = self._tracker.find(told.user_id)
        now_ms = self._tracker.now_ms()
        if now_ms // 1000 != self._encoded_at:
            self._encoded_at = now_ms // 1000
            self._encoded.clear()
        active = told.last_active_ms if user is None else user.last_active_ms
        key = told.user_id, told.position, active
        event = self._encoded.get(key)
        if event is None:
            event = self._encoded[key] = told.event(now_ms, active)
        return event


def _is_in_one_of(places: MemberRooms, rooms: Iterable[int]) -> bool:
    """Whether a user with these places is joined to one of the rooms."""
    return any(
        (place := places.get(room)) is not None and place.membership == "join" for room in rooms
    )

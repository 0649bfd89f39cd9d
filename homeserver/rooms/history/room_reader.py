"""Reading a room: its state, its members and single events, as far as the reader may see them.

The current state is visible to members, to all users where the history is world-readable, and to
invited users where the visibility includes them. That is checked first, so that a former member
sees no less than other users. Users who have left, and have not forgotten the room, read it as it
was when they left; the specification says nothing of banned users, and they read nothing later. All
others get an error, whether the room exists or not, so that the error does not show which rooms
exist.

`Visibility` decides how far back each of them sees, event by event.

What needs all members waits for the full state of a room with partial state, and raises
`Unavailable` if that takes too long: clients would take a partial list for a complete one.

Spec: https://spec.matrix.org/v1.19/client-server-api/#getting-events-for-a-room
"""

from collections.abc import Collection, Iterable

import msgspec

from homeserver.concurrency.cooperative import build_cooperatively
from homeserver.protocol.errors import Forbidden, NotFound
from homeserver.protocol.event_types import MEMBER
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.history.visibility import Visibility, VisibleEvent
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room, StateKey
from homeserver.rooms.room.user_rooms import UserRooms
from homeserver.rooms.state.node_codec import EMPTY
from homeserver.storage.database.database import Database
from homeserver.storage.rooms.events import events_after, state_root_at
from homeserver.storage.rooms.names import Names
from homeserver.streams.positions import MAX_POSITION
from homeserver.streams.tokens import parse_room_token


class ReadAccess(msgspec.Struct, frozen=True):
    """A room that a user may read, up to and including a position of the log."""

    room: Room
    user_id: str
    until: int

    @property
    def is_current(self) -> bool:
        """Whether the user sees new events."""
        return self.until == MAX_POSITION

    def includes(self, stored: StoredEvent) -> bool:
        """Whether the event was there before the user left."""
        return stored.visible_since <= self.until


class RoomReader:
    """Reads rooms on behalf of users."""

    def __init__(
        self,
        db: Database,
        names: Names,
        rooms: RoomRegistry,
        user_rooms: UserRooms,
        visibility: Visibility,
    ) -> None:
        self._db = db
        self._names = names
        self._rooms = rooms
        self._user_rooms = user_rooms
        self._visibility = visibility

    async def access(self, user_id: str, room_id: str) -> ReadAccess:
        """The access of a user to a room, and up to which position. Raises `Forbidden`."""
        room = await self._rooms.find(room_id)
        if room is not None:
            is_member = room.membership(user_id) == "join"
            if is_member or await self._visibility.may_see_now(room, user_id):
                return ReadAccess(room, user_id, MAX_POSITION)
            if until := await self._left_at(room, user_id):
                return ReadAccess(room, user_id, until)
        raise Forbidden("You are not in the room, and never were")

    async def joined_rooms(self, user_id: str) -> list[str]:
        """Ids of the rooms that the user is joined to."""
        room_nids = await self._user_rooms.joined(user_id)
        return await self._rooms.room_ids(room_nids)

    async def state(self, user_id: str, room_id: str) -> list[StoredEvent]:
        """The whole state of a room. Raises `Forbidden`."""
        access = await self.access(user_id, room_id)
        room = access.room
        await room.wait_for_full_state(self._rooms.local_server.clock)
        if access.is_current:
            return await self._load(room, [*room.state.values(), *room.member_events.values()])
        return await self.state_at(room, await self._root(room, access.until))

    async def state_event(
        self, user_id: str, room_id: str, event_type: str, state_key: str
    ) -> StoredEvent:
        """One event of a room's state. Raises `Forbidden`, or `NotFound` if there is none."""
        access = await self.access(user_id, room_id)
        key = (event_type, state_key)
        if event_type == MEMBER:
            await access.room.wait_for_full_state(self._rooms.local_server.clock, state_key)
        if access.is_current:
            found = await self._rooms.current(access.room, [key])
        else:
            root = await self._root(access.room, access.until)
            found = await self._visibility.state_at(access.room, root, [key])
        if key not in found:
            raise NotFound("The room has no state of this type and key")
        return found[key]

    async def members(
        self,
        user_id: str,
        room_id: str,
        *,
        at: str | None = None,
        membership: str | None = None,
        not_membership: str | None = None,
    ) -> list[StoredEvent]:
        """Member events, now or at a token, optionally filtered by membership.

        Raises `Forbidden`, and `InvalidParam` for an invalid token.
        """
        access = await self.access(user_id, room_id)
        room, until = access.room, access.until
        await room.wait_for_full_state(self._rooms.local_server.clock)
        if at is not None:
            place = parse_room_token(at, room.room_nid)
            until = min(until, place if isinstance(place, int) else place[1])
        if until >= room.last_position:
            events = await self._load(room, list(room.member_events.values()))
        else:
            root = await self._root_at_token(room, until)
            events = await self.state_at(room, root, only_members=True)
        if membership is None and not_membership is None:
            return events
        return [stored for stored in events if _is_wanted(stored, membership, not_membership)]

    async def joined_members(self, user_id: str, room_id: str) -> dict[str, dict[str, str | None]]:
        """Name and avatar of each joined member, for a user who is joined too. Raises `Forbidden`.

        A missing value is `None`: clients expect both keys, although the specification requires
        neither.
        """
        room = await self._rooms.find(room_id)
        if room is None or room.membership(user_id) != "join":
            raise Forbidden("You are not in the room")
        await room.wait_for_full_state(self._rooms.local_server.clock)
        event_nids = [room.member_events[member] for member in room.joined_members()]
        events = await self._load(room, event_nids)
        infos = ((stored.event.state_key or "", _member_info(stored)) for stored in events)
        return dict(await build_cooperatively(self._rooms.local_server.clock, infos))

    async def event(self, user_id: str, room_id: str, event_id: str) -> VisibleEvent:
        """An event that the user may see. Raises `NotFound` for all others."""
        return (await self.event_in_room(user_id, room_id, event_id))[1]

    async def event_in_room(
        self, user_id: str, room_id: str, event_id: str
    ) -> tuple[Room, VisibleEvent]:
        """An event that the user may see, with its room. Raises `NotFound` for all others."""
        missing = NotFound("The event does not exist, or you may not see it")
        try:
            access = await self.access(user_id, room_id)
        except Forbidden:
            raise missing from None
        room = access.room
        stored = await self._rooms.find_event(room, event_id)
        if stored is None or not access.includes(stored):
            raise missing
        if stored.position is None:
            # An event in no timeline is visible to members, whose clients have it as state.
            key = (stored.event.type, stored.event.state_key or "")
            if room.number_of(key) == stored.event_nid and room.membership(user_id) == "join":
                return room, VisibleEvent(stored, "join")
            raise missing
        seen = await self._visibility.visible(room, user_id, [stored])
        if not seen:
            raise missing
        return room, seen[0]

    async def state_at(
        self,
        room: Room,
        root: bytes,
        *,
        only_members: bool = False,
        members: Collection[str] | None = None,
    ) -> list[StoredEvent]:
        """All events of the state with this root, or its member events alone.

        If `members` is given, member events of other users are left out.
        """
        if root == room.root:
            return await self._load(room, _current_nids(room, only_members, members))
        entries = await self._rooms.state_entries(root)
        names = await self._names.find_nids([MEMBER, *(members or ())])
        member_type = names.get(MEMBER)
        key_nids = None if members is None else {names.get(user_id) for user_id in members}
        event_nids = [
            event_nid
            for (type_nid, key_nid), event_nid in entries.items()
            if (type_nid == member_type or not only_members)
            and (type_nid != member_type or key_nids is None or key_nid in key_nids)
        ]
        return await self._load(room, event_nids)

    async def member_events(
        self, room: Room, root: bytes, user_ids: Iterable[str]
    ) -> list[StoredEvent]:
        """The member events of these users in the state with this root."""
        keys: list[StateKey] = [(MEMBER, user_id) for user_id in user_ids]
        if root == room.root:
            return list((await self._rooms.current(room, keys)).values())
        return list((await self._visibility.state_at(room, root, keys)).values())

    async def _left_at(self, room: Room, user_id: str) -> int:
        """The position where the user left the room last; 0 if they may not read it."""
        place = (await self._user_rooms.of(user_id)).get(room.room_nid)
        if place is None or place.forgotten or place.membership == "ban":
            return 0
        return await self._visibility.joined_until(room, user_id)

    async def _load(self, room: Room, event_nids: list[int]) -> list[StoredEvent]:
        return await self._rooms.load_many_events(room, event_nids)

    async def _root(self, room: Room, position: int) -> bytes:
        return await self._db.run(state_root_at, room.room_nid, position) or EMPTY

    async def _root_at_token(self, room: Room, position: int) -> bytes:
        """The root of the state before the first event above a position, from which clients page
        back.

        If the room's history begins here, or continues after a gap, the state came with that event.
        A room that was created here has no state before it, and its creator is there from the
        beginning.
        """
        if room.timeline_gaps.newest(position + 1) != position + 1:
            root = await self._db.run(state_root_at, room.room_nid, position)
            if root is not None:
                return root
        rows = await self._db.run(events_after, [room.room_nid], position, MAX_POSITION, 2)
        event_nids = [event for _, _, event in rows]
        first = await self._rooms.load_events_in_order(room, event_nids)
        if not first:
            return EMPTY
        if first[0].state_before == EMPTY:
            return first[-1].state_after
        return first[0].state_before


def _current_nids(room: Room, only_members: bool, members: Collection[str] | None) -> list[int]:
    """The nids of the events of the current state, filtered as for `RoomReader.state_at`."""
    others = [] if only_members else list(room.state.values())
    if members is None:
        return others + list(room.member_events.values())
    return others + [room.member_events[user] for user in members if user in room.member_events]


def _is_wanted(stored: StoredEvent, membership: str | None, not_membership: str | None) -> bool:
    actual = stored.event.content.get("membership")
    return actual == membership or (not_membership is not None and actual != not_membership)


def _member_info(stored: StoredEvent) -> dict[str, str | None]:
    content = stored.shown.content
    return {
        "display_name": _text(content.get("displayname")),
        "avatar_url": _text(content.get("avatar_url")),
    }


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None

"""The state that goes with a timeline: all of it, or what changed, with only the members it needs.

Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from homeserver.protocol.event_types import MEMBER
from homeserver.protocol.filters import RoomEventFilter
from homeserver.rooms.discovery.heroes import heroes
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room, StateKey
from homeserver.rooms.state.node_codec import EMPTY
from homeserver.storage.database.database import Database
from homeserver.storage.rooms.events import state_root_at
from homeserver.sync.lazy_members import LazyMembers
from homeserver.sync.sync_request import SyncRequest
from homeserver.sync.timelines import TimelineSlice


class RoomStateSections:
    """Finds the state events of a room section."""

    def __init__(self, db: Database, rooms: RoomRegistry, lazy_members: LazyMembers) -> None:
        self._db = db
        self._rooms = rooms
        self._lazy_members = lazy_members

    async def full(
        self,
        room: Room,
        reader: SyncRequest,
        timeline: TimelineSlice,
        now: int,
        known_since: int | None = None,
    ) -> list[StoredEvent]:
        """The whole state at the start of a timeline, or at its end where the reader wants it so.

        `known_since` is the token of a reader who may know members already.
        """
        others, members = await self._state_before(room, _told(reader, timeline.events), now)
        numbers = list(others.values())
        if reader.lazy:
            named_after = await heroes(self._rooms, room, reader.user_id)
            wanted = {reader.user_id, *named_after, *_senders(timeline)}
            chosen = self._lazy_members.unsent(reader, room.room_nid, wanted, known_since)
            numbers += await self._tell(room, reader, members, chosen, now)
        else:
            numbers += members.values()
        return await self._load(room, reader, numbers)

    async def changes(
        self, room: Room, reader: SyncRequest, timeline: TimelineSlice, since: int, now: int
    ) -> list[StoredEvent]:
        """The state that changed above `since` and that the timeline does not tell.

        With `use_state_after` it is all that changed, whether the timeline tells of it or not.
        Members who changed in a gap are told of even with lazy loading: the client may know them.
        It cannot know those whom the server came to know by what they sent, or with the state of a
        room that it entered without its members.
        """
        changed = await self._changed(room, reader, timeline, since, now)
        if not reader.lazy:
            return self._wanted(reader, changed.values())
        if room.partial is not None or not timeline.limited:
            changed = {key: stored for key, stored in changed.items() if _may_be_known(key, stored)}
        told = [key[1] for key in changed if key[0] == MEMBER]
        self._lazy_members.sent(reader, room.room_nid, told, now)
        senders = _senders(timeline).difference(told)
        return self._wanted(reader, changed.values()) + await self.lazy(
            room, reader, senders, since, now, timeline.events
        )

    async def corrected(self, room: Room, reader: SyncRequest, now: int) -> list[StoredEvent]:
        """The member events of those whom a device was told of before the room was whole."""
        user_ids = self._lazy_members.mark_sent(reader, room.room_nid)
        self._lazy_members.sent(reader, room.room_nid, user_ids, now)
        numbers = [room.member_events[each] for each in user_ids if each in room.member_events]
        return await self._load(room, reader, numbers)

    async def lazy(
        self,
        room: Room,
        reader: SyncRequest,
        senders: Iterable[str],
        since: int,
        now: int,
        events: Sequence[StoredEvent],
    ) -> list[StoredEvent]:
        """Member events of the senders that the device does not have yet.

        `events` are those of the timeline.
        """
        unknown = self._lazy_members.unsent(reader, room.room_nid, senders, since)
        if not unknown:
            return []
        _, members = await self._state_before(room, _told(reader, events), now)
        return await self._load(room, reader, await self._tell(room, reader, members, unknown, now))

    async def _tell(
        self,
        room: Room,
        reader: SyncRequest,
        members: Mapping[str, int],
        user_ids: Iterable[str],
        now: int,
    ) -> list[int]:
        """Numbers of the member events of users, of whom the device is told now.

        A member who is not in the state before the timeline may have come into it by an event of
        that, which tells of itself, or by none: because they were not known when the room was
        entered.
        """
        told = {user_id: members[user_id] for user_id in user_ids if user_id in members}
        late = {
            number: user_id
            for user_id in user_ids
            if user_id not in members and (number := room.member_events.get(user_id)) is not None
        }
        for stored in (await self._rooms.stores.events.load(room.version, list(late))).values():
            if stored.position is None:
                told[late[stored.event_nid]] = stored.event_nid
        # Of those who are still not known the device has to be told when they are.
        self._lazy_members.sent(reader, room.room_nid, told, now)
        return list(told.values())

    async def _changed(
        self, room: Room, reader: SyncRequest, timeline: TimelineSlice, since: int, now: int
    ) -> dict[StateKey, StoredEvent]:
        """What became current above `since`, but for what the timeline tells by itself.

        An entry that the state lost cannot be told: no event says so.
        """
        events = _told(reader, timeline.events)
        told = {stored.event_nid for stored in events}
        changed = room.changes_after(since, now, told)
        if changed is None:
            first = events[0] if events else None
            changed = await self._difference(room, first, since, now, told)
        return {key: stored for key, stored in changed.items() if stored is not None}

    async def _difference(
        self, room: Room, first: StoredEvent | None, since: int, now: int, told: Collection[int]
    ) -> dict[StateKey, StoredEvent | None]:
        """The same for a gap that memory does not reach over, from the state trees at its ends.

        `first` is where the timeline begins, of a reader who wants the state before it.
        """
        ends = [since, now]
        if first is not None:
            # What the timeline changes again had changed before all the same.
            ends.insert(1, (first.position or 0) - 1)
        roots = [await self._db.run(state_root_at, room.room_nid, end) for end in ends]
        changed: dict[StateKey, StoredEvent | None] = {}
        for old, new in pairwise(roots):
            news = await self._rooms.stores.changes_between(
                room.version, old or EMPTY, new or EMPTY
            )
            changed |= {
                key: stored
                for key, stored in news.items()
                if stored is None or stored.event_nid not in told
            }
        return changed

    async def _state_before(
        self, room: Room, told: Sequence[StoredEvent], now: int
    ) -> tuple[Mapping[StateKey, int], Mapping[str, int]]:
        """Event numbers of a state, without and with members, that some events make that of `now`.

        Where nothing is missing it is the state before the first of them. What became current by
        none of them, because another branch or the state after a gap came along with one, no client
        could find there: it is part of this state.
        """
        undone = room.undone(now)
        if undone is None:
            root = await self._db.run(state_root_at, room.room_nid, now)
            others, members = await self._state_from_tree(root or EMPTY)
        else:
            others, members = _with(room.state, room.member_events, undone)
        return _with(others, members, _replaced(told, others, members))

    async def _state_from_tree(
        self, root: bytes
    ) -> tuple[Mapping[StateKey, int], Mapping[str, int]]:
        entries = await self._rooms.stores.states.load(root)
        names = await self._rooms.stores.names.names({nid for key in entries for nid in key})
        others: dict[StateKey, int] = {}
        members: dict[str, int] = {}
        for (type_nid, key_nid), number in entries.items():
            if names[type_nid] == MEMBER:
                members[names[key_nid]] = number
            else:
                others[(names[type_nid], names[key_nid])] = number
        return others, members

    async def _load(
        self, room: Room, reader: SyncRequest, numbers: Sequence[int]
    ) -> list[StoredEvent]:
        events, clock = self._rooms.stores.events, self._rooms.local_server.clock
        return self._wanted(reader, await events.load_many(room.version, numbers, clock))

    def _wanted(self, reader: SyncRequest, events: Iterable[StoredEvent]) -> list[StoredEvent]:
        wanted: RoomEventFilter = reader.filter.room.state
        if wanted.is_default and wanted.matches_all_rooms:
            return list(events)
        return [
            stored
            for stored in events
            if wanted.matches_room(stored.event.room_id)
            and wanted.matches(stored.event.type, stored.event.sender, stored.event.content)
        ]


def _told(reader: SyncRequest, timeline: Sequence[StoredEvent]) -> Sequence[StoredEvent]:
    """The events by which a reader learns of the state: none for one who is told it as it ends."""
    return () if reader.use_state_after else timeline


def _replaced(
    told: Sequence[StoredEvent], others: Mapping[StateKey, int], members: Mapping[str, int]
) -> dict[StateKey, int | None]:
    """What the events that are told have put in the place of other entries of a state."""
    numbers = {stored.event_nid for stored in told}
    replaced: dict[StateKey, int | None] = {}
    for stored in reversed(told):
        event = stored.event
        if event.state_key is not None:
            key = event.type, event.state_key
            current = members.get(key[1]) if key[0] == MEMBER else others.get(key)
            if current in numbers:
                replaced[key] = stored.replaces
    return replaced


def _with(
    others: Mapping[StateKey, int],
    members: Mapping[str, int],
    entries: Mapping[StateKey, int | None],
) -> tuple[Mapping[StateKey, int], Mapping[str, int]]:
    """A state, without and with members, with some entries as they are given; `None` for none."""
    if not entries:
        return others, members
    if any(key[0] != MEMBER for key in entries):
        others = dict(others)
    if any(key[0] == MEMBER for key in entries):
        members = dict(members)
    for key, number in entries.items():
        if key[0] == MEMBER:
            _put(members, key[1], number)
        else:
            _put(others, key, number)
    return others, members


def _put(numbers: Any, key: Any, number: int | None) -> None:
    if number is None:
        numbers.pop(key, None)
    else:
        numbers[key] = number


def _may_be_known(key: StateKey, stored: StoredEvent) -> bool:
    """Whether a client with lazy loading may have an older event than this one."""
    return key[0] != MEMBER or stored.position is not None


def _senders(timeline: TimelineSlice) -> set[str]:
    return {event.stored.event.sender for event in timeline.seen}

"""The state that accompanies a timeline: full or changed, with only the members it needs.

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
from homeserver.sync.sections.lazy_members import LazyMembers
from homeserver.sync.sections.timelines import TimelineSlice
from homeserver.sync.sync_request import SyncRequest


class RoomStateSections:
    """Finds the state events of a room section."""

    def __init__(self, db: Database, rooms: RoomRegistry, lazy_members: LazyMembers) -> None:
        self._db = db
        self._rooms = rooms
        self._lazy_members = lazy_members

    async def full(
        self,
        room: Room,
        request: SyncRequest,
        timeline: TimelineSlice,
        now: int,
        known_since: int | None = None,
    ) -> list[StoredEvent]:
        """The full state at the start of a timeline, or at its end with `use_state_after`.

        `known_since` is the token of a client that may know members already.
        """
        others, members = await self._state_before(
            room, _applied_events(request, timeline.events), now
        )
        numbers = list(others.values())
        if request.lazy:
            hero_ids = await heroes(self._rooms, room, request.user_id)
            wanted = {request.user_id, *hero_ids, *_senders(timeline)}
            chosen = self._lazy_members.unsent(request, room.room_nid, wanted, known_since)
            numbers += await self._send_members(room, request, members, chosen, now)
        else:
            numbers += members.values()
        return await self._load(room, request, numbers)

    async def changes(
        self, room: Room, request: SyncRequest, timeline: TimelineSlice, since: int, now: int
    ) -> list[StoredEvent]:
        """The state that changed above `since` and that is not in the timeline.

        With `use_state_after` it is all that changed, even if it is in the timeline. Members that
        changed in a gap are sent even with lazy loading: the client may know them. It cannot know
        members that this server learned of from their events, or from the state of a room that it
        joined with partial state.
        """
        changed = await self._changed(room, request, timeline, since, now)
        if not request.lazy:
            return self._wanted(request, changed.values())
        if room.partial is not None or not timeline.limited:
            changed = {key: stored for key, stored in changed.items() if _may_be_known(key, stored)}
        members = [key[1] for key in changed if key[0] == MEMBER]
        self._lazy_members.mark_sent(request, room.room_nid, members, now)
        senders = _senders(timeline).difference(members)
        return self._wanted(request, changed.values()) + await self.lazy(
            room, request, senders, since, now, timeline.events
        )

    async def corrected(self, room: Room, request: SyncRequest, now: int) -> list[StoredEvent]:
        """The member events of users that a device was sent while the room had partial state."""
        user_ids = self._lazy_members.sent_members(request, room.room_nid)
        self._lazy_members.mark_sent(request, room.room_nid, user_ids, now)
        numbers = [room.member_events[each] for each in user_ids if each in room.member_events]
        return await self._load(room, request, numbers)

    async def lazy(
        self,
        room: Room,
        request: SyncRequest,
        senders: Iterable[str],
        since: int | None,
        now: int,
        events: Sequence[StoredEvent],
    ) -> list[StoredEvent]:
        """Member events of the senders that the device does not have yet.

        `events` are those of the timeline.
        """
        unknown = self._lazy_members.unsent(request, room.room_nid, senders, since)
        if not unknown:
            return []
        _, members = await self._state_before(room, _applied_events(request, events), now)
        return await self._load(
            room, request, await self._send_members(room, request, members, unknown, now)
        )

    async def _send_members(
        self,
        room: Room,
        request: SyncRequest,
        members: Mapping[str, int],
        user_ids: Iterable[str],
        now: int,
    ) -> list[int]:
        """Numeric ids of the users' member events, which are marked as sent to the device.

        A member who is not in the state before the timeline may have joined by an event of the
        timeline, which the client gets anyway, or by none: the room was joined with partial state.
        """
        sent = {user_id: members[user_id] for user_id in user_ids if user_id in members}
        late = {
            number: user_id
            for user_id in user_ids
            if user_id not in members and (number := room.member_events.get(user_id)) is not None
        }
        if late:
            for stored in (await self._rooms.load_events(room, list(late))).values():
                if stored.position is None:
                    sent[late[stored.event_nid]] = stored.event_nid
        # Members that are still unknown must be sent to the device once they are known.
        self._lazy_members.mark_sent(request, room.room_nid, sent, now)
        return list(sent.values())

    async def at(
        self, room: Room, position: int
    ) -> tuple[Mapping[StateKey, int], Mapping[str, int]]:
        """The state at a position: nids of events, without members and members only."""
        return await self._state_before(room, (), position)

    async def _changed(
        self, room: Room, request: SyncRequest, timeline: TimelineSlice, since: int, now: int
    ) -> dict[StateKey, StoredEvent]:
        """The state that became current above `since`, except by an event of the timeline.

        A removed state entry cannot be sent: there is no event for it.
        """
        events = _applied_events(request, timeline.events)
        changed = await self.entries_changed(room, since, now, events)
        return {key: stored for key, stored in changed.items() if stored is not None}

    async def entries_changed(
        self, room: Room, since: int, now: int, events: Sequence[StoredEvent] = ()
    ) -> dict[StateKey, StoredEvent | None]:
        """The entries that changed above `since`, except by the given events of a timeline.

        They come with their events of `now`; `None` for those that the state has no more.
        """
        applied = {stored.event_nid for stored in events}
        changed = room.changes_after(since, now, applied)
        if changed is None:
            first = events[0] if events else None
            changed = await self._difference(room, first, since, now, applied)
        return changed

    async def _difference(
        self, room: Room, first: StoredEvent | None, since: int, now: int, applied: Collection[int]
    ) -> dict[StateKey, StoredEvent | None]:
        """The same for a range that is not in memory, from the state trees at its ends.

        `first` is the first timeline event, for a request that wants the state before it.
        """
        ends = [since, now]
        if first is not None:
            # Entries that the timeline changes again had changed before it too.
            ends.insert(1, (first.position or 0) - 1)
        roots = [await self._db.run(state_root_at, room.room_nid, end) for end in ends]
        changed: dict[StateKey, StoredEvent | None] = {}
        for old, new in pairwise(roots):
            difference = await self._rooms.changes_between(room, old or EMPTY, new or EMPTY)
            changed |= {
                key: stored
                for key, stored in difference.items()
                if stored is None or stored.event_nid not in applied
            }
        return changed

    async def _state_before(
        self, room: Room, applied: Sequence[StoredEvent], now: int
    ) -> tuple[Mapping[StateKey, int], Mapping[str, int]]:
        """The state that the `applied` events turn into that of `now`: numeric ids of events.

        Where no event is missing it is the state before the first of them. It comes in two parts,
        without members and members only. Entries that became current by none of them, because one
        brought another branch or the state after a gap, could not be found by a client in the
        timeline: they are part of this state.
        """
        undone = room.undone(now)
        if undone is None:
            root = await self._db.run(state_root_at, room.room_nid, now)
            others, members = await self._state_from_tree(root or EMPTY)
        else:
            others, members = _with(room.state, room.member_events, undone)
        return _with(others, members, _replaced(applied, others, members))

    async def _state_from_tree(
        self, root: bytes
    ) -> tuple[Mapping[StateKey, int], Mapping[str, int]]:
        others: dict[StateKey, int] = {}
        members: dict[str, int] = {}
        for key, event_nid in (await self._rooms.state_nids(root)).items():
            if key[0] == MEMBER:
                members[key[1]] = event_nid
            else:
                others[key] = event_nid
        return others, members

    async def _load(
        self, room: Room, request: SyncRequest, numbers: Sequence[int]
    ) -> list[StoredEvent]:
        return self._wanted(request, await self._rooms.load_many_events(room, numbers))

    def _wanted(self, request: SyncRequest, events: Iterable[StoredEvent]) -> list[StoredEvent]:
        wanted: RoomEventFilter = request.filter.room.state
        if wanted.is_default and wanted.matches_all_rooms:
            return list(events)
        return [
            stored
            for stored in events
            if wanted.matches_room(stored.event.room_id)
            and wanted.matches(stored.event.type, stored.event.sender, stored.event.content)
        ]


def _applied_events(request: SyncRequest, timeline: Sequence[StoredEvent]) -> Sequence[StoredEvent]:
    """The timeline events that the client applies to the state: none with `use_state_after`."""
    return () if request.use_state_after else timeline


def _replaced(
    applied: Sequence[StoredEvent], others: Mapping[StateKey, int], members: Mapping[str, int]
) -> dict[StateKey, int | None]:
    """The entries of a state that the `applied` events replaced, as they were before."""
    numbers = {stored.event_nid for stored in applied}
    replaced: dict[StateKey, int | None] = {}
    for stored in reversed(applied):
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
    """A state, others and members, with the given entries set; `None` removes an entry."""
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

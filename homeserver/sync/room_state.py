"""The state that goes with a timeline: all of it, or what changed, with only the members it needs.

Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from homeserver.protocol.filters import RoomEventFilter
from homeserver.rooms.room import Room, StateKey
from homeserver.rooms.rooms import Rooms
from homeserver.rooms.stored_event import StoredEvent
from homeserver.storage.database import Database
from homeserver.storage.events import state_root_at
from homeserver.sync.lazy_members import LazyMembers
from homeserver.sync.reader import Reader
from homeserver.sync.summary import heroes
from homeserver.sync.timelines import Slice


class RoomState:
    """Finds the state events of a room section."""

    def __init__(self, db: Database, rooms: Rooms, lazy_members: LazyMembers) -> None:
        self._db = db
        self._rooms = rooms
        self._lazy_members = lazy_members

    async def full(
        self, room: Room, reader: Reader, timeline: Slice, now: int, known_since: int | None = None
    ) -> list[StoredEvent]:
        """The whole state at the start of a timeline, or at its end where the reader wants it so.

        `known_since` is the token of a reader who may know members already.
        """
        first = None if reader.use_state_after else timeline.first
        others, members = await self._state_before(room, first, now)
        numbers = list(others.values())
        if reader.lazy:
            named_after = await heroes(self._rooms, room, reader.user_id)
            wanted = {reader.user_id, *named_after, *_senders(timeline)}
            chosen = self._lazy_members.unknown(reader, room.number, wanted, known_since)
            numbers += [members[user_id] for user_id in chosen if user_id in members]
            self._lazy_members.sent(reader, room.number, chosen, now)
        else:
            numbers += members.values()
        return await self._load(room, reader, numbers)

    async def changes(
        self, room: Room, reader: Reader, timeline: Slice, since: int, now: int
    ) -> list[StoredEvent]:
        """The state that changed above `since` and that the timeline does not tell.

        With `use_state_after` it is all that changed, whether the timeline tells of it or not.
        Members who changed in a gap are told of even with lazy loading: the client may know them.
        """
        changed = await self._changed(room, reader, timeline, since, now)
        if not reader.lazy:
            return self._wanted(reader, changed.values())
        told = [key[1] for key in changed if key[0] == "m.room.member"]
        self._lazy_members.sent(reader, room.number, told, now)
        senders = _senders(timeline).difference(told)
        return self._wanted(reader, changed.values()) + await self.lazy(
            room, reader, senders, since, now, timeline.first
        )

    async def lazy(
        self,
        room: Room,
        reader: Reader,
        senders: Iterable[str],
        since: int,
        now: int,
        first: StoredEvent | None,
    ) -> list[StoredEvent]:
        """Member events of the senders that the device does not have yet."""
        unknown = self._lazy_members.unknown(reader, room.number, senders, since)
        if not unknown:
            return []
        _, members = await self._state_before(room, None if reader.use_state_after else first, now)
        self._lazy_members.sent(reader, room.number, unknown, now)
        return await self._load(
            room, reader, [members[user_id] for user_id in unknown if user_id in members]
        )

    async def _changed(
        self, room: Room, reader: Reader, timeline: Slice, since: int, now: int
    ) -> dict[StateKey, StoredEvent]:
        events = room.events_after(since)
        if events is None:
            return await self._difference(room, reader, timeline, since, now)
        told = set() if reader.use_state_after else {event.stored.number for event in timeline.seen}
        changed: dict[StateKey, StoredEvent] = {}
        for stored in events:
            event = stored.event
            if (
                event.state_key is not None
                and (stored.position or 0) <= now
                and stored.number not in told
            ):
                changed[(event.type, event.state_key)] = stored
        return changed

    async def _difference(
        self, room: Room, reader: Reader, timeline: Slice, since: int, now: int
    ) -> dict[StateKey, StoredEvent]:
        """The same for a gap that memory does not reach over, from the state trees at both ends."""
        before = await self._db.run(state_root_at, room.number, since)
        if timeline.first is None or reader.use_state_after:
            after = await self._db.run(state_root_at, room.number, now)
        else:
            after = timeline.first.state_before
        changed = await self._rooms.stores.states.diff(before or b"", after or b"")
        numbers = [new for _, new in changed.values() if new is not None]
        events = await self._rooms.stores.events.load(room.version, numbers)
        return {
            (stored.event.type, stored.event.state_key or ""): stored for stored in events.values()
        }

    async def _state_before(
        self, room: Room, first: StoredEvent | None, now: int
    ) -> tuple[Mapping[StateKey, int], Mapping[str, int]]:
        """Event numbers of the state before an event, or at `now`, without and with members."""
        place = now + 1 if first is None else (first.position or 0)
        if place <= room.timeline_from:
            return await self._state_from_tree(room, place - 1)
        undone: dict[StateKey, int | None] = {}
        for stored in reversed(room.timeline):
            if (stored.position or 0) < place:
                break
            if stored.event.state_key is not None:
                undone[(stored.event.type, stored.event.state_key)] = stored.replaces
        if not undone:
            return room.state, room.member_events
        others: dict[StateKey, int] = dict(room.state)
        members = room.member_events
        if any(key[0] == "m.room.member" for key in undone):
            members = dict(members)
        for key, number in undone.items():
            if key[0] == "m.room.member":
                _put(members, key[1], number)
            else:
                _put(others, key, number)
        return others, members

    async def _state_from_tree(
        self, room: Room, position: int
    ) -> tuple[Mapping[StateKey, int], Mapping[str, int]]:
        root = await self._db.run(state_root_at, room.number, position)
        entries = await self._rooms.stores.states.load(root or b"")
        names = await self._rooms.stores.names.names({nid for key in entries for nid in key})
        others: dict[StateKey, int] = {}
        members: dict[str, int] = {}
        for (type_nid, key_nid), number in entries.items():
            if names[type_nid] == "m.room.member":
                members[names[key_nid]] = number
            else:
                others[(names[type_nid], names[key_nid])] = number
        return others, members

    async def _load(self, room: Room, reader: Reader, numbers: Sequence[int]) -> list[StoredEvent]:
        events = await self._rooms.stores.events.load_in_order(room.version, numbers)
        return self._wanted(reader, events)

    def _wanted(self, reader: Reader, events: Iterable[StoredEvent]) -> list[StoredEvent]:
        wanted: RoomEventFilter = reader.filter.room.state
        if wanted.is_default:
            return list(events)
        return [
            stored
            for stored in events
            if wanted.matches(stored.event.type, stored.event.sender, stored.event.content)
        ]


def _put(numbers: dict[Any, int], key: Any, number: int | None) -> None:
    if number is None:
        numbers.pop(key, None)
    else:
        numbers[key] = number


def _senders(timeline: Slice) -> set[str]:
    return {event.stored.event.sender for event in timeline.seen}

"""All rooms: loads a room and its writer when they are needed, and drops them when they are idle.

A room in memory follows the log: `apply` is the log's first subscriber, so code that reads a room
later in the same reactor iteration sees it as it is at the log's position.
"""

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from homeserver.concurrency.lru_cache import LruCache
from homeserver.concurrency.single_flight import SingleFlight
from homeserver.protocol.errors import Forbidden, NotFound
from homeserver.protocol.event_types import CREATE_KEY, MEMBER, POWER_LEVELS_KEY
from homeserver.protocol.power_levels import PowerLevels
from homeserver.protocol.room_versions import RoomVersion
from homeserver.rooms.events.local_server import LocalServer
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.room.changes import (
    EventAppended,
    PartialRoomLeft,
    RoomChange,
    StateChanged,
    membership_of,
    with_own_events,
)
from homeserver.rooms.room.draft_senders import DraftSender
from homeserver.rooms.room.extremities import ForwardExtremities
from homeserver.rooms.room.pending_redactions import PendingRedactions
from homeserver.rooms.room.room import SHORT_TIMELINE, STATE_ENTRY_BYTES, Room, StateKey
from homeserver.rooms.room.room_loader import RoomLoader
from homeserver.rooms.room.room_storage import RoomStorage
from homeserver.rooms.room.writer import RoomWriter
from homeserver.rooms.state.node_codec import EMPTY, Key
from homeserver.storage.database.database import Database
from homeserver.storage.rooms import events as events_storage

MAX_STATE_ENTRIES = 400_000  # about 250 bytes each
BATCH_SIZE = 100  # rooms that are read together
LONG_TIMELINES_BYTES = 16 * 2**20
"""Of the timelines of rooms that have more than `SHORT_TIMELINE` events in memory."""


class RoomRegistry:
    """The rooms of this server, each with its one writer.

    `capacity` is the number of state entries that take as much memory as all rooms may take
    together. Long timelines have a bound of their own: rooms in which nothing happens keep the
    newest `SHORT_TIMELINE` events.
    """

    def __init__(
        self,
        db: Database,
        local_server: LocalServer,
        storage: RoomStorage,
        senders: Sequence[DraftSender] = (),
        capacity: int = MAX_STATE_ENTRIES,
    ) -> None:
        self.local_server = local_server
        self._storage = storage
        self._senders = senders
        self._db = db
        self._loader = RoomLoader(db, local_server, storage)
        # The room that was used last stays: its caller has not pinned the writer yet.
        self._loaded: LruCache[int, tuple[Room, RoomWriter]] = LruCache(
            "rooms",
            capacity * STATE_ENTRY_BYTES,
            size_of=lambda _, entry: entry[0].memory,
            is_pinned=lambda entry: entry[1].is_busy,
            on_evict=lambda number, _: self._long_timelines.pop(number),
            is_in_bytes=True,
        )
        self._long_timelines: LruCache[int, Room] = LruCache(
            "long_timelines",
            LONG_TIMELINES_BYTES,
            size_of=lambda _, room: room.timeline_bytes,
            on_evict=self._shorten_timeline,
            is_in_bytes=True,
            shares_values=True,
        )
        self._retired: set[int] = set()  # rooms that were deleted since the start
        self._loads: SingleFlight[int, bool] = SingleFlight()
        self.loads = 0  # rooms that were read from the database
        self.events_appended = 0

    def __len__(self) -> int:
        return len(self._loaded)

    def loaded(self, number: int) -> Room | None:
        """The room with this nid, if it is in memory."""
        entry = self._loaded.get(number)
        return None if entry is None else entry[0]

    async def find(self, room_id: str) -> Room | None:
        """The room with this id, or `None` if this server does not have it."""
        number = self._storage.names.cached_nid(room_id)
        if number is None:
            number = (await self._storage.names.find_nids([room_id])).get(room_id)
            if number is None:
                return None
        return await self.by_number(number)

    async def get(self, room_id: str) -> Room:
        """The room with this id; raises `NotFound`."""
        room = await self.find(room_id)
        if room is None:
            raise NotFound("This server does not know the room")
        return room

    async def by_number(self, number: int) -> Room | None:
        """The room with this nid, loaded if necessary; `None` if there is none."""
        entry = await self._entry(number)
        return None if entry is None else entry[0]

    def writing(self, room_id: str) -> "_Writing":
        """A context of the room's writer, which stays the only one; entering raises `NotFound`."""
        return _Writing(self, room_id)

    async def writer(self, room_id: str) -> RoomWriter:
        """The room's writer, to be pinned before the caller yields; raises `NotFound`."""
        number = self._storage.names.cached_nid(room_id)
        entry = None if number is None else self._loaded.get(number)
        if entry is None:
            room = await self.get(room_id)
            entry = await self._entry(room.room_nid)
            assert entry is not None
        return entry[1]

    @asynccontextmanager
    async def entering(self, room_id: str, version: RoomVersion) -> AsyncIterator[RoomWriter]:
        """The writer of a room that this server is joining, whether it is new here or known before.

        Raises `ValueError` if the room is known to have another version.
        """
        number = await self._storage.names.nid(room_id)
        entry = await self._entry(number)
        if number in self._retired:
            raise Forbidden("The room is being deleted from this server")
        if entry is None:
            # Another request may have created it in the meantime, but not since the line above.
            room = Room(number, room_id, version, EMPTY)
            entry = (room, self.add_new(room))
        room, writer = entry
        if room.version is not version:
            raise ValueError(f"the room has version {room.version.identifier}")
        writer.pin()
        try:
            yield writer
        finally:
            writer.unpin()
            if not writer.is_pinned and not writer.extremities.events and number in self._loaded:
                self.drop(room)

    def add_new(self, room: Room) -> RoomWriter:
        """Add a room that is being created here, and return its writer."""
        writer = self._writer(room, ForwardExtremities((), room.root))
        self._keep(room, writer)
        return writer

    def drop(self, room: Room) -> None:
        """Drop a room that was not created after all."""
        self._loaded.pop(room.room_nid)
        self._long_timelines.pop(room.room_nid)

    def retire(self, number: int) -> bool:
        """Make a room unknown until the next start, as it is being deleted; false if it is in use.

        Its state and events may then be removed from the database.
        """
        entry = self._loaded.peek(number)
        if entry is not None and entry[1].is_busy:
            return False
        self._retired.add(number)
        self._loaded.pop(number)
        self._long_timelines.pop(number)
        return True

    async def is_retired(self, room_id: str) -> bool:
        """Whether a room was retired."""
        return bool(self._retired) and await self.find_room_nid(room_id) in self._retired

    async def current(self, room: Room, keys: Sequence[StateKey]) -> dict[StateKey, StoredEvent]:
        """The current state events with these types and state keys, those that exist."""
        numbers = {key: number for key in keys if (number := room.number_of(key)) is not None}
        events = await self._storage.events.load(room.version, list(numbers.values()))
        return {key: events[number] for key, number in numbers.items()}

    async def load_events(self, room: Room, event_nids: Sequence[int]) -> dict[int, StoredEvent]:
        """Stored events of a room by their numeric ids."""
        return await self._storage.events.load(room.version, event_nids)

    async def load_events_in_order(
        self, room: Room, event_nids: Sequence[int]
    ) -> list[StoredEvent]:
        """Stored events of a room, in the order of the numeric ids."""
        return await self._storage.events.load_in_order(room.version, event_nids)

    async def load_many_events(self, room: Room, event_nids: Sequence[int]) -> list[StoredEvent]:
        """As `load_events_in_order`, in time slices: for the events of a whole state."""
        return await self._storage.events.load_many(
            room.version, event_nids, self.local_server.clock
        )

    async def get_events_ready(self, wanted: Mapping[Room, Sequence[int]]) -> None:
        """Have stored events of several rooms in memory, read together."""
        events = self._storage.events
        missing = events.missing(nid for event_nids in wanted.values() for nid in event_nids)
        if missing:
            versions = {room.room_nid: room.version for room in wanted}
            await events.load_of_rooms(versions, missing, self.local_server.clock)

    async def get_states_ready(self, roots: Collection[bytes]) -> None:
        """Have the roots of states in memory, read together."""
        await self._storage.states.get_ready(roots)

    def cached_event(self, event_nid: int) -> StoredEvent | None:
        """A stored event, if it is in memory."""
        return self._storage.events.cached(event_nid)

    async def find_event(self, room: Room, event_id: str) -> StoredEvent | None:
        """The event of a room with this id, if it is stored."""
        return await self._storage.events.find(room.version, room.room_nid, room.room_id, event_id)

    async def find_events(self, room: Room, event_ids: Collection[str]) -> dict[str, StoredEvent]:
        """The events of a room with these ids, as far as they are stored."""
        return await self._storage.events.find_many(
            room.version, room.room_nid, room.room_id, event_ids
        )

    async def rooms_with_event(self, event_id: str) -> list[int]:
        """Numeric ids of the rooms that have an event with this id."""
        return await self._storage.events.rooms_with(event_id)

    async def room_ids(self, room_nids: Iterable[int]) -> list[str]:
        """The ids of rooms by their numeric ids."""
        return list((await self._storage.names.names(room_nids)).values())

    async def find_room_nid(self, room_id: str) -> int | None:
        """The numeric id of a room id, if this server has stored one."""
        return await self._storage.names.find_nid(room_id)

    async def find_room_nids(self, room_ids: Iterable[str]) -> dict[str, int]:
        """The numeric ids of those of the room ids that have one, with one query at most."""
        return await self._storage.names.find_nids(room_ids)

    async def state_entries(self, root: bytes) -> Mapping[Key, int]:
        """The state with this root: numeric ids of type, state key and event."""
        return await self._storage.states.load(root)

    async def state_nids(self, root: bytes) -> dict[StateKey, int]:
        """The numeric ids of all events of the state with this root."""
        entries = await self._storage.states.load(root)
        names = await self._storage.names.names({nid for key in entries for nid in key})
        return {(names[key[0]], names[key[1]]): event for key, event in entries.items()}

    async def state_at(
        self, version: RoomVersion, root: bytes, keys: Iterable[StateKey]
    ) -> dict[StateKey, StoredEvent]:
        """The events with these keys of the state with this root."""
        return await self._storage.state_at(version, root, keys)

    async def state_nids_at(self, root: bytes, keys: Iterable[StateKey]) -> dict[StateKey, int]:
        """The numeric ids of these events."""
        return await self._storage.nids_at(root, keys)

    async def changes_between(
        self, room: Room, old: bytes, new: bytes
    ) -> dict[StateKey, StoredEvent | None]:
        """The entries of one state that differ in another; `None` for those that it lacks."""
        return await self._storage.changes_between(room.version, old, new)

    async def entries_before(self, old: bytes, new: bytes) -> dict[StateKey, int | None]:
        """The entries of one state that differ from another, as they are in the former."""
        return await self._storage.entries_before(old, new)

    async def was_joined(self, room: Room, user_id: str, position: int) -> bool:
        """Whether a user was joined in the state that was the room's at a position of the log."""
        root = await self._db.run(events_storage.state_root_at, room.room_nid, position) or EMPTY
        state = await self.state_at(room.version, root, [(MEMBER, user_id)])
        return membership_of(state.get((MEMBER, user_id))) == "join"

    async def power_levels(self, room: Room) -> PowerLevels:
        """The power levels in force in a room."""
        events = await self.current(room, [CREATE_KEY, POWER_LEVELS_KEY])
        levels = events.get(POWER_LEVELS_KEY)
        return PowerLevels(
            events[CREATE_KEY].event, None if levels is None else levels.event.content
        )

    def apply(self, entries: Sequence[Any]) -> None:
        """Show new events in the rooms that are in memory (called by the log)."""
        for published in entries:
            entry = with_own_events(published, self._storage.events)
            if isinstance(entry, StateChanged):
                if isinstance(entry, EventAppended):
                    self.events_appended += 1
                loaded = self._loaded.peek(entry.room_nid)
                if loaded is not None:
                    room, writer = loaded
                    room.apply(entry)
                    writer.published(entry.position, entry.changes)
                    self._loaded.measure(entry.room_nid)
                    if len(room.timeline) > SHORT_TIMELINE:
                        self._long_timelines.put(entry.room_nid, room)
            elif isinstance(entry, RoomChange):
                loaded = self._loaded.peek(entry.room)
                if loaded is not None:
                    room, writer = loaded
                    room.follow(entry)
                    if isinstance(entry, PartialRoomLeft):
                        writer.inbound.end_partial(entry.join_id)
        self._loaded.shrink()

    async def _entry(self, number: int) -> tuple[Room, RoomWriter] | None:
        while number not in self._retired:
            entry = self._loaded.get(number)
            if entry is not None:
                return entry
            exists = await self._loads.join(number, partial(self._load_one, number))
            if not exists:
                # Another caller that waited for the same load may have created it by now.
                return self._loaded.peek(number)
        return None

    async def load_many(self, room_nids: Iterable[int]) -> None:
        """Load those of the rooms that are not in memory, together, unless they are very large.

        A load that fails here is repeated, and raises, where the room is needed.
        """
        missing = [nid for nid in room_nids if nid not in self._loaded and nid not in self._retired]
        if missing:
            await self._loads.join_many(missing, self._load)

    async def in_batches(self, room_nids: Iterable[int]) -> AsyncIterator[list[Room]]:
        """Those of the rooms that this server has, some at a time, each time read together.

        There may be more of them than memory has room for.
        """
        numbers = list(room_nids)
        for start in range(0, len(numbers), BATCH_SIZE):
            batch = numbers[start : start + BATCH_SIZE]
            rooms = [self.loaded(nid) for nid in batch]
            if None in rooms:
                await self.load_many(batch)
                rooms = [self.loaded(nid) or await self.by_number(nid) for nid in batch]
            yield [room for room in rooms if room is not None]

    async def _load(self, numbers: Sequence[int]) -> dict[int, bool]:
        """Load rooms, at least the only one; returns whether there is each of them."""
        self.loads += len(numbers)
        # Nothing is appended to a room that is not in memory, so these reads are consistent.
        loaded, others = await self._loader.load(numbers)
        for each in loaded:
            writer = self._writer(each.room, each.extremities, each.pending_redactions)
            self._keep(each.room, writer)
        existing = [*(each.room.room_nid for each in loaded), *others]
        return dict.fromkeys(numbers, False) | dict.fromkeys(existing, True)

    async def _load_one(self, number: int) -> bool:
        return (await self._load([number]))[number]

    def _writer(
        self,
        room: Room,
        extremities: ForwardExtremities,
        pending_redactions: PendingRedactions | None = None,
    ) -> RoomWriter:
        return RoomWriter(
            room, extremities, self.local_server, self._storage, self._senders, pending_redactions
        )

    def _shorten_timeline(self, number: int, room: Room) -> None:
        room.shorten_timeline(SHORT_TIMELINE)
        self._loaded.measure(number)

    def _keep(self, room: Room, writer: RoomWriter) -> None:
        if room.room_nid not in self._retired:
            self._loaded.put(room.room_nid, (room, writer))


class _Writing:
    """The context of `RoomRegistry.writing`: every message enters one, so it is no generator."""

    __slots__ = ("_room_id", "_rooms", "_writer")

    def __init__(self, rooms: RoomRegistry, room_id: str) -> None:
        self._rooms = rooms
        self._room_id = room_id
        self._writer: RoomWriter | None = None

    async def __aenter__(self) -> RoomWriter:
        writer = self._writer = await self._rooms.writer(self._room_id)
        writer.pin()
        return writer

    async def __aexit__(self, *_: object) -> None:
        assert self._writer is not None, "the context was entered"
        self._writer.unpin()

"""All rooms: loads a room and its writer when they are needed, and drops them when they are idle.

A room in memory follows the log: `apply` is the log's first reader, so whoever reads a room later
in the same turn sees it as it is at the log's position.
"""

from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from twisted.internet.defer import Deferred

from homeserver.concurrency.deferreds import gather4, wait_for_completion
from homeserver.protocol.errors import NotFound
from homeserver.protocol.power_levels import PowerLevels
from homeserver.protocol.room_versions import ROOM_VERSIONS, RoomVersion
from homeserver.rooms.events.local_server import LocalServer
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.room.changes import (
    EventAppended,
    EventsStored,
    PartialRoomLeft,
    RoomUnPartialStated,
    StateChanged,
    membership_of,
)
from homeserver.rooms.room.extremities import ForwardExtremities, parse_extremities
from homeserver.rooms.room.partial_state import PartialState
from homeserver.rooms.room.pending_redactions import PendingRedactions
from homeserver.rooms.room.policy_server_port import DraftSender, PolicyServerPort
from homeserver.rooms.room.room import Room, StateKey
from homeserver.rooms.room.room_storage import RoomStorage
from homeserver.rooms.room.timeline_gaps import MAX_IN_MEMORY, TimelineGaps
from homeserver.rooms.room.writer import RoomWriter
from homeserver.rooms.state.node_codec import EMPTY
from homeserver.storage.database.database import Database
from homeserver.storage.rooms import events as events_storage
from homeserver.storage.rooms import graph_edges
from homeserver.storage.rooms import rooms as rooms_storage
from homeserver.storage.rooms.events import TimelineHead
from homeserver.storage.rooms.memberships import memberships_in
from homeserver.storage.rooms.partial_rooms import LEFT, partial_room

TIMELINE_CACHE_EVENTS = (
    50  # newest events that are read when a room is loaded; more are kept as they come
)
MAX_STATE_ENTRIES = 400_000  # of all rooms in memory together; about 250 bytes each


class RoomRegistry:
    """The rooms of this server, each with its one writer."""

    def __init__(self, db: Database, origin: LocalServer, stores: RoomStorage) -> None:
        self.local_server = origin
        self.stores = stores
        self._policy: PolicyServerPort | None = None
        self._branch_sender: DraftSender | None = None
        self._db = db
        self._loaded: OrderedDict[int, tuple[Room, RoomWriter]] = OrderedDict()
        self._loading: dict[int, Deferred[Any]] = {}
        self._entries = 0
        self.loads = 0  # rooms that were read from the database
        self.events_appended = 0

    def __len__(self) -> int:
        return len(self._loaded)

    def loaded(self, number: int) -> Room | None:
        """The room with this number, if it is in memory."""
        entry = self._loaded.get(number)
        if entry is None:
            return None
        self._loaded.move_to_end(number)
        return entry[0]

    async def find(self, room_id: str) -> Room | None:
        """The room with this id, or `None` if this server does not have it."""
        number = self.stores.names.cached_nid(room_id)
        if number is None:
            number = (await self.stores.names.find_nids([room_id])).get(room_id)
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
        """The room with this number, loaded if need be; `None` where there is none."""
        entry = await self._entry(number)
        return None if entry is None else entry[0]

    @asynccontextmanager
    async def writing(self, room_id: str) -> AsyncIterator[RoomWriter]:
        """The room's writer, which stays the only one while the block runs; raises `NotFound`."""
        room = await self.get(room_id)
        entry = await self._entry(room.room_nid)
        assert entry is not None
        writer = entry[1]
        writer.users += 1
        try:
            yield writer
        finally:
            writer.users -= 1

    @asynccontextmanager
    async def entering(self, room_id: str, version: RoomVersion) -> AsyncIterator[RoomWriter]:
        """The writer of a room that this server comes into, be it new here or known before.

        Raises `ValueError` where the room is known to have another version.
        """
        number = await self.stores.names.nid(room_id)
        entry = await self._entry(number)
        if entry is None:
            # Another request may have made it in the meantime, but not since the line above.
            room = Room(number, room_id, version, EMPTY)
            entry = (room, self.add_new(room))
        room, writer = entry
        if room.version is not version:
            raise ValueError(f"the room has version {room.version.identifier}")
        writer.users += 1
        try:
            yield writer
        finally:
            writer.users -= 1
            if not writer.users and not writer.extremities.events and number in self._loaded:
                self.drop(room)

    def use_policy_servers(self, policy: PolicyServerPort) -> None:
        """Have all events of this server checked by the policy servers of rooms."""
        self._policy = policy
        for _, writer in self._loaded.values():
            writer.policy = policy

    def send_branches_with(self, sender: DraftSender) -> None:
        """Have events sent by this one where a room has more branches than one event joins."""
        self._branch_sender = sender
        for _, writer in self._loaded.values():
            writer.branch_sender = sender

    def add_new(self, room: Room) -> RoomWriter:
        """Take in a room that is being made here, and give its writer."""
        writer = RoomWriter(room, ForwardExtremities((), room.root), self.local_server, self.stores)
        self._keep(room, writer)
        return writer

    def drop(self, room: Room) -> None:
        """Let go of a room that was not made after all."""
        del self._loaded[room.room_nid]
        self._entries -= room.size

    async def current(self, room: Room, keys: Sequence[StateKey]) -> dict[StateKey, StoredEvent]:
        """The current state events with these types and state keys, those that there are."""
        numbers = {key: number for key in keys if (number := room.number_of(key)) is not None}
        events = await self.stores.events.load(room.version, list(numbers.values()))
        return {key: events[number] for key, number in numbers.items()}

    async def was_joined(self, room: Room, user_id: str, position: int) -> bool:
        """Whether a user was joined by the state that was the room's at a position of the log."""
        root = await self._db.run(events_storage.state_root_at, room.room_nid, position) or EMPTY
        key = ("m.room.member", user_id)
        state = await self.stores.state_at(room.version, root, [key])
        return membership_of(state.get(key)) == "join"

    async def power_levels(self, room: Room) -> PowerLevels:
        """The power levels in force in a room."""
        events = await self.current(room, [("m.room.create", ""), ("m.room.power_levels", "")])
        levels = events.get(("m.room.power_levels", ""))
        return PowerLevels(
            events[("m.room.create", "")].event, None if levels is None else levels.event.content
        )

    def apply(self, facts: Sequence[Any]) -> None:
        """A reader of the log: show new events in the rooms that are in memory."""
        for fact in facts:
            if isinstance(fact, EventAppended):
                self.events_appended += 1
                if fact.redacts is not None:
                    fact.redacts.redact(fact.stored.event)
            if isinstance(fact, EventsStored):
                if fact.redacts is not None:
                    fact.redacts.redact(fact.events[0].event)
                entry = self._loaded.get(fact.room)
                if entry is not None:
                    entry[0].fill(fact)
            elif isinstance(fact, PartialRoomLeft):
                entry = self._loaded.get(fact.room)
                if entry is not None and entry[0].leave_partial(fact.join_id):
                    entry[1].is_partial = False
            elif isinstance(fact, StateChanged):
                entry = self._loaded.get(fact.room_nid)
                if entry is not None:
                    room, writer = entry
                    before = room.size
                    room.apply(fact)
                    if isinstance(fact, RoomUnPartialStated):
                        self._withdraw(fact)
                    writer.published(fact.position, fact.changes)
                    self._entries += room.size - before
        self._shrink()

    def _withdraw(self, fact: RoomUnPartialStated) -> None:
        """Have events found in no timeline any more, whoever holds them."""
        for number in fact.withdrawn:
            stored = self.stores.events.cached(number)
            if stored is not None:
                stored.position = None

    async def _entry(self, number: int) -> tuple[Room, RoomWriter] | None:
        while True:
            entry = self._loaded.get(number)
            if entry is not None:
                self._loaded.move_to_end(number)
                return entry
            waiting = self._loading.get(number)
            if waiting is None:
                break
            await wait_for_completion(waiting)
        loading = self._loading[number] = Deferred()
        try:
            return await self._load(number)
        finally:
            del self._loading[number]
            loading.callback(None)

    async def _load(self, number: int) -> tuple[Room, RoomWriter] | None:
        self.loads += 1
        run = self._db.run
        # Nothing is appended to a room that is not in memory, so what is read fits together.
        row, head, edges, memberships = await gather4(
            run(rooms_storage.find_room, number),
            run(events_storage.timeline_head, number, TIMELINE_CACHE_EVENTS),
            run(graph_edges.graph_edges, number, MAX_IN_MEMORY),
            run(memberships_in, number),
        )
        if row is None:
            return None
        room_id = await self.stores.names.name(number)
        room = Room(number, room_id, ROOM_VERSIONS[row.version], head.root or EMPTY)
        room.published = row.published
        room.backward_extremities, room.timeline_gaps = (
            edges.backward_extremities,
            TimelineGaps(edges.timeline_gaps),
        )
        await self._load_partial(room)
        await self._load_state(room, memberships)
        await self._load_timeline(room, head)
        extremities = await self._extremities(room, head)
        if len(extremities) > 1:
            # Which events of memory stand on which branch is not known.
            room.disordered_at = room.last_position
        writer = RoomWriter(
            room, ForwardExtremities(extremities, room.root), self.local_server, self.stores
        )
        writer.early_redactions = PendingRedactions(number, edges.pending_redactions)
        self._keep(room, writer)
        return room, writer

    async def _load_partial(self, room: Room) -> None:
        row = await self._db.run(partial_room, room.room_nid)
        if row is not None and row.full_state_at is None:
            room.partial = PartialState(row.event_id, row.servers)
        elif row is not None:
            room.full_state_at = max(row.full_state_at or 0, 0)
            room.was_left_partial = row.full_state_at == LEFT

    async def _load_timeline(self, room: Room, head: TimelineHead) -> None:
        newest = list(head.newest)
        room.last_position = max(newest[0][0] if newest else 0, head.forked_at)
        if len(newest) == TIMELINE_CACHE_EVENTS:
            # The oldest one only marks where memory begins.
            room.timeline_from = newest.pop()[0]
        numbers = [event for _, event in reversed(newest)]
        timeline = await self.stores.events.load_in_order(room.version, numbers)
        room.recall(timeline, head.forked_at)

    async def _extremities(self, room: Room, head: TimelineHead) -> tuple[StoredEvent, ...]:
        if head.extremities is None:
            return tuple(room.timeline)[-1:]
        found = await self.stores.events.find_many(
            room.version, room.room_nid, room.room_id, parse_extremities(head.extremities)
        )
        return tuple(found.values())

    async def _load_state(self, room: Room, memberships: Mapping[int, str]) -> None:
        entries = await self.stores.states.load(room.root)
        names = await self.stores.names.names({nid for key in entries for nid in key})
        for (type_nid, key_nid), event in entries.items():
            membership = memberships.get(event, "leave")
            room.set_state((names[type_nid], names[key_nid]), event, membership)

    def _keep(self, room: Room, writer: RoomWriter) -> None:
        writer.policy = self._policy
        writer.branch_sender = self._branch_sender
        self._loaded[room.room_nid] = (room, writer)
        self._entries += room.size
        self._shrink()

    def _shrink(self) -> None:
        if self._entries <= MAX_STATE_ENTRIES:
            return
        # The one that was used last has a user that is only just getting hold of it.
        for number, (room, writer) in list(self._loaded.items())[:-1]:
            if not writer.is_busy:
                del self._loaded[number]
                self._entries -= room.size
                if self._entries <= MAX_STATE_ENTRIES:
                    return

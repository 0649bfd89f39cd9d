"""Loading rooms from the database: any number of them with a few statements.

A server that was restarted has no room in memory, and an account in thousands of rooms needs all of
them for its first answer. Read one by one, each would cost eight statements.
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from homeserver.concurrency.cooperative import TimeSlice
from homeserver.protocol.room_versions import ROOM_VERSIONS
from homeserver.rooms.events.local_server import LocalServer
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.room.extremities import ForwardExtremities, parse_extremities
from homeserver.rooms.room.partial_state import PartialState
from homeserver.rooms.room.pending_redactions import PendingRedactions
from homeserver.rooms.room.room import SHORT_TIMELINE, Room
from homeserver.rooms.room.room_storage import RoomStorage
from homeserver.rooms.room.timeline_gaps import MAX_IN_MEMORY, TimelineGaps
from homeserver.rooms.state.node_codec import EMPTY, Entries
from homeserver.storage.database.database import Connection, Database
from homeserver.storage.rooms.graph_edges import GraphEdges, graph_edges
from homeserver.storage.rooms.memberships import memberships_in
from homeserver.storage.rooms.newest_events import NO_EVENTS, TimelineHead, timeline_heads
from homeserver.storage.rooms.partial_rooms import LEFT, PartialRoomRow, partial_rooms
from homeserver.storage.rooms.rooms import RoomRow, find_rooms

PART_ENTRIES = 20_000  # of states, from which on no more rooms are read with the same statements
MAX_ENTRIES = 100_000  # of the states of all rooms that are loaded together


class LoadedRoom(msgspec.Struct, frozen=True):
    """A room as the database has it, and what its writer needs beside it."""

    room: Room
    extremities: ForwardExtremities
    pending_redactions: PendingRedactions


class _StoredRooms(msgspec.Struct, frozen=True):
    """What the tables have of some rooms, beside their members: by room nid."""

    rows: Sequence[RoomRow]
    heads: Mapping[int, TimelineHead]
    edges: Mapping[int, GraphEdges]
    partial: Mapping[int, PartialRoomRow]

    def root(self, row: RoomRow) -> bytes:
        """The root of a room's current state."""
        return self.heads.get(row.room, NO_EVENTS).root or EMPTY


class RoomLoader:
    """Loads rooms. The caller ensures that nothing is appended to them meanwhile."""

    def __init__(self, db: Database, local_server: LocalServer, storage: RoomStorage) -> None:
        self._db = db
        self._clock = local_server.clock
        self._storage = storage

    async def load(self, room_nids: Sequence[int]) -> tuple[list[LoadedRoom], list[int]]:
        """Those of the rooms that this server has: loaded ones, and the nids of others.

        At least one is loaded if there is any, and not many more than `MAX_ENTRIES` of their
        states: of large rooms, each is better loaded when it is needed.
        """
        found = await self._db.run(_read, room_nids)
        sizes = await self._storage.states.size_bounds({found.root(row) for row in found.rows})
        loaded: list[LoadedRoom] = []
        waiting = list(found.rows)
        total = 0
        while waiting and total < MAX_ENTRIES:
            part: list[RoomRow] = []
            entries = 0
            while waiting and (not part or entries < PART_ENTRIES):
                part.append(waiting.pop())
                entries += sizes[found.root(part[-1])]
            loaded += await self._load_part(found, part)
            total += entries
        return loaded, [row.room for row in waiting]

    async def _load_part(self, found: _StoredRooms, rows: Sequence[RoomRow]) -> list[LoadedRoom]:
        memberships = await self._db.run(memberships_in, [row.room for row in rows])
        states = await self._storage.states.load_many({found.root(row) for row in rows})
        names = await self._names(rows, states.values())
        timelines = {row.room: _timeline(found.heads.get(row.room, NO_EVENTS)) for row in rows}
        events = await self._storage.events.load_of_rooms(
            {row.room: ROOM_VERSIONS[row.version] for row in rows},
            [nid for timeline in timelines.values() for nid in timeline],
            self._clock,
        )
        time_slice = TimeSlice(self._clock)
        loaded = []
        for row in rows:
            if time_slice.is_over:
                await time_slice.next()
            nid, head = row.room, found.heads.get(row.room, NO_EVENTS)
            room = Room(nid, names[nid], ROOM_VERSIONS[row.version], found.root(row))
            room.published = row.published
            room.backward_extremities = found.edges[nid].backward_extremities
            room.timeline_gaps = TimelineGaps(found.edges[nid].timeline_gaps)
            _set_partial(room, found.partial.get(nid))
            for (type_nid, key_nid), event in states[room.root].items():
                membership = memberships.get(event, "leave")
                room.set_state((names[type_nid], names[key_nid]), event, membership)
            _set_timeline(room, head, [events[each] for each in timelines[nid] if each in events])
            loaded.append(await self._with_extremities(room, head, found.edges[nid]))
        return loaded

    async def _names(self, rows: Sequence[RoomRow], states: Iterable[Entries]) -> dict[int, str]:
        """The ids of the rooms, and the types and keys of their states."""
        nids = {nid for entries in states for key in entries for nid in key}
        return await self._storage.names.names(nids.union(row.room for row in rows))

    async def _with_extremities(
        self, room: Room, head: TimelineHead, edges: GraphEdges
    ) -> LoadedRoom:
        extremities = tuple(room.timeline)[-1:]
        if head.extremities is not None:
            event_ids = parse_extremities(head.extremities)
            found = await self._storage.events.find_many(
                room.version, room.room_nid, room.room_id, event_ids
            )
            extremities = tuple(found[each] for each in event_ids if each in found)
        if len(extremities) > 1:
            # It is not known which events in memory are on which branch.
            room.disordered_at = room.last_position
        pending = PendingRedactions(room.room_nid, edges.pending_redactions)
        return LoadedRoom(room, ForwardExtremities(extremities, room.root), pending)


async def _read(db: Connection, room_nids: Sequence[int]) -> _StoredRooms:
    """One after the other: each new connection has to plan each statement first."""
    return _StoredRooms(
        await find_rooms(db, room_nids),
        await timeline_heads(db, room_nids, SHORT_TIMELINE + 1),
        await graph_edges(db, room_nids, MAX_IN_MEMORY),
        await partial_rooms(db, room_nids),
    )


def _timeline(head: TimelineHead) -> list[int]:
    """The nids of the events in memory, oldest first. One more marks where they begin."""
    newest = head.newest[:SHORT_TIMELINE]
    return [event for _, event in reversed(newest)]


def _set_timeline(room: Room, head: TimelineHead, timeline: list[StoredEvent]) -> None:
    newest = head.newest
    room.last_position = max(newest[0][0] if newest else 0, head.forked_at)
    if len(newest) > SHORT_TIMELINE:
        room.timeline_from = newest[-1][0]
    room.recall(timeline, head.forked_at)


def _set_partial(room: Room, row: PartialRoomRow | None) -> None:
    if row is not None and row.full_state_at is None:
        room.partial = PartialState(row.event_id, row.servers)
    elif row is not None:
        room.full_state_at = max(row.full_state_at or 0, 0)
        room.was_left_partial = row.full_state_at == LEFT

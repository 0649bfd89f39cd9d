"""A room as in the database, for operators of the server, without visibility checks.

Nothing here needs the room in memory, so it works beside a running server, and changes nothing.

Spec: https://spec.matrix.org/v1.19/server-server-api/#pdus
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec

from homeserver.protocol.event_types import MEMBER
from homeserver.protocol.identifiers import server_name_of
from homeserver.protocol.room_versions import ROOM_VERSIONS, RoomVersion
from homeserver.rooms.diagnostics.room_graph import RoomGraph, graph_of
from homeserver.rooms.events.event_store import EventStore
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.room.extremities import parse_extremities
from homeserver.rooms.state.node_codec import EMPTY
from homeserver.rooms.state.store import StateStore
from homeserver.storage.database.database import Database
from homeserver.storage.rooms import event_graph, graph_edges
from homeserver.storage.rooms.event_graph import StatusCounts
from homeserver.storage.rooms.memberships import memberships_in
from homeserver.storage.rooms.names import Names
from homeserver.storage.rooms.newest_events import NO_EVENTS, TimelineHead, timeline_heads
from homeserver.storage.rooms.partial_rooms import PartialRoomRow, partial_rooms
from homeserver.storage.rooms.room_aliases import aliases_of, find_alias
from homeserver.storage.rooms.rooms import RoomRow, find_room

CACHED = 20_000  # events and state nodes, while one room is inspected
MAX_EVENTS_OF_TYPE = 20  # state events of one type that a report lists
MAX_RULES = 20


class RoomReport(msgspec.Struct, frozen=True):
    """A report about a room.

    `state` has the current state events by type, of each type the first `MAX_EVENTS_OF_TYPE`;
    `state_counts` counts all of them. `members` counts users by membership and server.
    `backward_extremities` are missing events, with the depth of the events that follow them.
    `refusals` are (whether rejected or else soft-failed, rule, how many). `partial` tells how the
    room was joined, if its state is or was partial.
    """

    room_id: str
    version: str
    is_published: bool
    aliases: Sequence[str]
    state: Mapping[str, Sequence[StoredEvent]]
    state_counts: Mapping[str, int]
    members: Mapping[str, Mapping[str, int]]
    extremities: Sequence[StoredEvent]
    backward_extremities: Mapping[str, int]
    event_counts: StatusCounts
    refusals: Sequence[tuple[bool, str, int]]
    partial: PartialRoomRow | None = None


class RoomInspection:
    """Reads rooms from the database."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._names = Names(db)
        self._events = EventStore(db, CACHED)
        self._states = StateStore(db, CACHED)

    async def find(self, room_id_or_alias: str) -> RoomRow | None:
        """The room with this id, or to which a local alias points."""
        if room_id_or_alias.startswith("#"):
            alias = await self._db.run(find_alias, room_id_or_alias)
            room_nid = None if alias is None else alias.room
        else:
            room_nid = await self._names.find_nid(room_id_or_alias)
        return None if room_nid is None else await self._db.run(find_room, room_nid)

    async def report(self, row: RoomRow) -> RoomReport:
        """The report about a room."""
        db, version = self._db, ROOM_VERSIONS[row.version]
        room_id = await self._names.name(row.room)
        edge = await self._head(row.room)
        entries = await self._states.load(edge.root or EMPTY)
        names = await self._names.names({nid for key in entries for nid in key})
        event_nids: dict[str, list[int]] = {}
        for type_nid, key_nid in sorted(entries, key=lambda key: (names[key[0]], names[key[1]])):
            event_nids.setdefault(names[type_nid], []).append(entries[type_nid, key_nid])
        memberships = await db.run(memberships_in, [row.room])
        members: dict[str, Counter[str]] = {}
        for (type_nid, key_nid), event_nid in entries.items():
            if names[type_nid] == MEMBER:
                membership = memberships.get(event_nid, "leave")
                servers = members.setdefault(membership, Counter())
                servers[server_name_of(names[key_nid])] += 1
        return RoomReport(
            room_id,
            row.version,
            row.published,
            await db.run(aliases_of, row.room),
            {
                event_type: await self._events.load_in_order(version, some[:MAX_EVENTS_OF_TYPE])
                for event_type, some in event_nids.items()
            },
            {event_type: len(some) for event_type, some in event_nids.items()},
            members,
            await self._extremities(row.room, room_id, version),
            await db.run(graph_edges.backward_extremities, row.room),
            await db.run(event_graph.count_by_status, row.room),
            await db.run(event_graph.refusals, row.room, MAX_RULES),
            (await db.run(partial_rooms, [row.room])).get(row.room),
        )

    async def newest(self, row: RoomRow, count: int) -> RoomGraph:
        """The graph of the newest `count` events."""
        return await self._graph(
            row, await self._db.run(event_graph.newest_in_graph, row.room, count)
        )

    async def around(self, row: RoomRow, event_id: str, count: int) -> RoomGraph | None:
        """The graph of the events nearest to one in depth; `None` if the room does not have it."""
        version = ROOM_VERSIONS[row.version]
        room_id = await self._names.name(row.room)
        stored = await self._events.find(version, row.room, room_id, event_id)
        if stored is None:
            return None
        after = (count - 1) // 2
        event_nids = await self._db.run(
            event_graph.nearest_in_graph,
            row.room,
            stored.topological_depth,
            stored.event_nid,
            count - after,
            after,
        )
        return await self._graph(row, event_nids)

    async def _graph(self, row: RoomRow, event_nids: Sequence[int]) -> RoomGraph:
        """The graph of these events, and of the outliers right before them."""
        version = ROOM_VERSIONS[row.version]
        room_id = await self._names.name(row.room)
        drawn = await self._events.load_in_order(version, event_nids)
        ids = {stored.event.event_id for stored in drawn}
        cited = {prev for stored in drawn for prev in stored.event.prev_event_ids} - ids
        known = await self._db.run(event_graph.known_events, row.room, list(cited))
        outliers = [event_id for event_id, is_outlier in known.items() if is_outlier]
        found = await self._events.find_many(version, row.room, room_id, outliers)
        drawn += found.values()
        more = {prev for stored in found.values() for prev in stored.event.prev_event_ids}
        known |= await self._db.run(event_graph.known_events, row.room, list(more - ids))
        extremities = await self._extremities(row.room, room_id, version)
        return graph_of(drawn, {stored.event.event_id for stored in extremities}, known)

    async def _head(self, room: int) -> TimelineHead:
        return (await self._db.run(timeline_heads, [room], 1)).get(room, NO_EVENTS)

    async def _extremities(
        self, room: int, room_id: str, version: RoomVersion
    ) -> Sequence[StoredEvent]:
        edge = await self._head(room)
        if edge.extremities is None:
            event_nids = [event for _, event in edge.newest]
            return await self._events.load_in_order(version, event_nids)
        ids = parse_extremities(edge.extremities)
        found = await self._events.find_many(version, room, room_id, ids)
        return list(found.values())

"""The purge of events: their content is deleted, and what the graph needs remains.

A purged event is as if it had been redacted: its id, sender, time and references stay, so that the
graph has no gap, later events that follow it are still checked by the state at it, and no other
server is asked for it again. It may also leave the timeline: then no client gets it any more.

State events are never purged.
"""

from collections.abc import Collection, Sequence
from typing import NamedTuple

from twisted.internet.defer import Deferred

from homeserver.concurrency.cooperative import build_cooperatively
from homeserver.protocol.events import Event
from homeserver.protocol.relations import relation_of
from homeserver.rooms.events.event_store import EventStore
from homeserver.rooms.room.changes import EventsPurged
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room
from homeserver.storage.database.batch import Row
from homeserver.storage.retention.expiring_events import DELETE_EXPIRING_EVENT
from homeserver.storage.rooms.events import DELETE_CONTENT, REMOVE_FROM_TIMELINE
from homeserver.storage.rooms.relations import DELETE_RELATION
from homeserver.storage.search.search_blocks import INSERT_REMOVAL
from homeserver.streams.log import Log


class _Purged(NamedTuple):
    """What becomes of an event: its JSON without content, unless it had none before."""

    event_nid: int
    json: bytes
    is_changed: bool
    has_relation: bool


class EventPurge:
    """Purges events, a bounded number at once."""

    def __init__(self, log: Log, rooms: RoomRegistry, events: EventStore) -> None:
        self._log = log
        self._rooms = rooms
        self._events = events

    async def purge(self, room: Room, event_nids: Collection[int], *, from_timeline: bool) -> None:
        """Purge events of a room; returns when that is durable.

        Events that the next one follows, and the newest of the timeline, stay there without
        content: from them a room is loaded. So do all while the room has partial state, whose
        events are checked again.
        """
        from_timeline = from_timeline and room.partial is None
        # While its writer is in use, a room is not being loaded from a database that changes.
        async with self._rooms.writing(room.room_id) as writer:
            clock = self._rooms.local_server.clock
            found = await self._events.load_bare(room.version, list(event_nids), clock)
            purged = (_purged(nid, event) for nid, event, _ in found if event.state_key is None)
            events = {each.event_nid: each for each in await build_cooperatively(clock, purged)}
            kept = {stored.event_nid for stored in writer.extremities.events}
            kept |= {stored.event_nid for stored in list(room.timeline)[-1:]}
            removed = events.keys() - kept if from_timeline else set()
            # The same event is found again by each job as long as it is the newest.
            emptied = {nid for nid in events.keys() - removed if events[nid].is_changed}
            self._log.check_open()
            done = [
                self._append(room, [events[nid] for nid in nids], from_timeline=is_removed)
                for nids, is_removed in ((removed, True), (emptied, False))
                if nids
            ]
            for each in done:
                await each

    def _append(
        self, room: Room, events: Sequence[_Purged], *, from_timeline: bool
    ) -> Deferred[None]:
        rows: list[Row] = []
        for event in events:
            rows.append(DELETE_CONTENT.row(event.event_nid, event.json))
            rows.append(DELETE_EXPIRING_EVENT.row(event.event_nid))
            rows.append(INSERT_REMOVAL.row(event.event_nid))
            if event.has_relation:
                rows.append(DELETE_RELATION.row(event.event_nid))
            if from_timeline:
                rows.append(REMOVE_FROM_TIMELINE.row(event.event_nid))
        position = self._log.next_position()
        event_nids = tuple([event.event_nid for event in events])
        entry = EventsPurged(position, room.room_nid, event_nids, from_timeline)
        return self._log.append(entry, rows)


def _purged(event_nid: int, event: Event) -> _Purged:
    json = event.redacted().json
    return _Purged(event_nid, json, json != event.json, relation_of(event) is not None)

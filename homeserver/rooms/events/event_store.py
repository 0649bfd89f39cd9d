"""Stored events: a bounded cache of them, and loading from the database.

An event has at most one object in a process, which this cache finds as long as somebody holds it:
so a change, such as a redaction, is seen by all holders. Log entries say by event nid what changed
(`redact`, `remove_from_timeline`) and have events of their own, for which `of_entry` gives the
object of this process.
"""

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Self
from weakref import ref

from homeserver.concurrency.clock import Clock
from homeserver.concurrency.cooperative import TimeSlice
from homeserver.concurrency.lru_cache import LruCache
from homeserver.protocol.events import Event
from homeserver.protocol.room_versions import RoomVersion
from homeserver.rooms.events.event_draft import ClientTransaction, sending_path
from homeserver.rooms.events.pending_reads import EventChange, PendingReads
from homeserver.rooms.events.stored_event import EventStatus, StoredEvent
from homeserver.rooms.state.node_codec import EMPTY
from homeserver.storage.database.database import Database
from homeserver.storage.rooms import auth_edges, event_graph
from homeserver.storage.rooms import events as storage

EVENT_BYTES = 1_700  # of an event in memory, with what is kept of it beside its JSON
DECODED_EVENTS = 1_000  # of the latest that were made or read
LOAD_BATCH_SIZE = 400  # events: a few milliseconds


_IdKey = str | tuple[str, str]


class _EventReference(ref[StoredEvent]):
    """A weak reference to an event, with the keys by which it is found. Tens of thousands exist."""

    __slots__ = ("event_nid", "id_key")
    event_nid: int
    id_key: _IdKey

    def __new__(cls, event: StoredEvent, on_end: Callable[[Self], None]) -> Self:
        reference = super().__new__(cls, event, on_end)
        reference.event_nid = event.event_nid
        reference.id_key = _id_key(event.event.room_id, event.event.event_id)
        return reference


class EventStore:
    """Stored events by nid and by event id; about `capacity` are kept in memory.

    The capacity is one in bytes, for events of `EVENT_BYTES`. The latest events stay decoded, as
    subscribers of the log read them.

    Events that other objects keep in memory are found as well: the log keeps the events that wait
    to be written, which the database does not have yet.
    """

    def __init__(self, db: Database, capacity: int) -> None:
        self._db = db
        self.recent: LruCache[int, StoredEvent] = LruCache(
            "events",
            capacity * EVENT_BYTES,
            size_of=lambda _, stored: stored.memory,
            is_in_bytes=True,
        )
        self._decoded: deque[StoredEvent] = deque()
        self._by_nid: dict[int, _EventReference] = {}
        self._by_id: dict[_IdKey, _EventReference] = {}
        self._on_end = self._forget  # one object for all references
        self._reads = PendingReads()

    def cached(self, event_nid: int) -> StoredEvent | None:
        """The event, if it is in memory."""
        event = self.recent.get(event_nid)
        return self._held(event_nid) if event is None else event

    def missing(self, event_nids: Iterable[int]) -> list[int]:
        """Those of the events that would have to be read, or nearly: some may be held elsewhere."""
        peek = self.recent.peek
        return [event_nid for event_nid in event_nids if peek(event_nid) is None]

    def add(self, event: StoredEvent) -> None:
        """Keep an event that was just made or read."""
        self.introduce(event)
        self.recent.put(event.event_nid, event)
        self._decoded.append(event)
        if len(self._decoded) > DECODED_EVENTS:
            self._decoded.popleft().forget_decoded()

    def introduce(self, event: StoredEvent) -> None:
        """Make an event findable as long as another object holds it: it may never be stored."""
        reference = _EventReference(event, self._on_end)
        self._by_nid[reference.event_nid] = self._by_id[reference.id_key] = reference

    def disown(self, event: StoredEvent) -> None:
        """Make an event unfindable: it was not stored after all."""
        self._by_nid.pop(event.event_nid, None)
        self._by_id.pop(_id_key(event.event.room_id, event.event.event_id), None)

    def _forget(self, reference: _EventReference) -> None:
        """Remove the reference to an event that nobody holds, unless another one replaced it."""
        if self._by_nid.get(reference.event_nid) is reference:
            del self._by_nid[reference.event_nid]
        if self._by_id.get(reference.id_key) is reference:
            del self._by_id[reference.id_key]

    def _held(self, event_nid: int) -> StoredEvent | None:
        """The event, if anybody holds it."""
        reference = self._by_nid.get(event_nid)
        return None if reference is None else reference()

    def published(self, stored: StoredEvent) -> StoredEvent:
        """This process's object for the subject of a published log entry, as the entry has it."""
        known = self._held(stored.event_nid)
        if known is stored:
            return stored
        self._reads.publish(stored.event_nid, lambda read: read.update(stored))
        if known is None:
            self.introduce(stored)
            return stored
        known.update(stored)
        return known

    def of_entry(self, stored: StoredEvent) -> StoredEvent:
        """This process's object for an event that a published log entry refers to."""
        known = self._held(stored.event_nid)
        if known is None:
            self.introduce(stored)
            return stored
        return known

    def redact(self, event_nid: int, redaction: Event) -> None:
        """Show an event redacted, if it is in memory or being read: its redaction was published."""
        self._change(event_nid, lambda stored: stored.redact(redaction))

    def remove_from_timeline(self, event_nid: int) -> None:
        """Make an event invisible, if it is in memory or being read."""
        self._change(event_nid, StoredEvent.remove_from_timeline)

    def purge(self, event_nid: int, *, from_timeline: bool) -> None:
        """Forget the content of an event, if it is in memory or being read."""
        self._change(event_nid, StoredEvent.purge)
        if from_timeline:
            self.remove_from_timeline(event_nid)

    def forget_room(self, room_id: str) -> None:
        """Forget the events of a room that was deleted."""
        for reference in list(self._by_nid.values()):
            stored = reference()
            if stored is not None and stored.event.room_id == room_id:
                self.recent.pop(stored.event_nid)
                self.disown(stored)

    def _change(self, event_nid: int, change: EventChange) -> None:
        known = self._held(event_nid)
        if known is not None:
            change(known)
        self._reads.publish(event_nid, change)

    def cached_id(self, room_id: str, event_id: str) -> StoredEvent | None:
        """The event of this room with this id, if it is in memory."""
        event = self._find(room_id, event_id)
        if event is not None:
            self.recent.get(event.event_nid)  # it counts as used
        return event

    def _find(self, room_id: str, event_id: str) -> StoredEvent | None:
        reference = self._by_id.get(_id_key(room_id, event_id))
        event = None if reference is None else reference()
        return None if event is None or event.event.room_id != room_id else event

    async def load(self, version: RoomVersion, event_nids: Sequence[int]) -> dict[int, StoredEvent]:
        """The events of a room of this version with these nids, from memory or the database."""
        return await self._load(event_nids, lambda _: version)

    async def load_of_rooms(
        self, versions: Mapping[int, RoomVersion], event_nids: Sequence[int], clock: Clock
    ) -> dict[int, StoredEvent]:
        """The same of several rooms, whose versions are given by their nids: in time slices."""
        time_slice = TimeSlice(clock)
        found: dict[int, StoredEvent] = {}
        for start in range(0, len(event_nids), LOAD_BATCH_SIZE):
            if time_slice.is_over:
                await time_slice.next()
            some = event_nids[start : start + LOAD_BATCH_SIZE]
            found |= await self._load(some, versions.__getitem__)
        return found

    async def _load(
        self, event_nids: Sequence[int], version_of: Callable[[int], RoomVersion]
    ) -> dict[int, StoredEvent]:
        found: dict[int, StoredEvent] = {}
        missing = []
        for event_nid in event_nids:
            event = self.cached(event_nid)
            if event is None:
                missing.append(event_nid)
            else:
                found[event_nid] = event
        if missing:
            with self._reads.reading(missing) as changes:
                rows = await self._db.run(storage.events_by_number, missing)
                for event in self._from_rows(version_of, rows, changes):
                    found[event.event_nid] = event
        return found

    async def load_bare(
        self, version: RoomVersion, event_nids: Sequence[int], clock: Clock | None = None
    ) -> list[tuple[int, Event, bool]]:
        """(nid, event, whether it was rejected) of some events; with a `clock` in time slices.

        Those that are not in memory are read, and not cached: for a caller that reads so many that
        they would evict all others.
        """
        found: list[tuple[int, Event, bool]] = []
        missing = []
        for event_nid in event_nids:
            stored = self._held(event_nid)
            if stored is None:
                missing.append(event_nid)
            else:
                found.append((event_nid, stored.event, stored.status.rejected is not None))
        if missing:
            rows = await self._db.run(storage.bare_events, missing)
            time_slice = None if clock is None else TimeSlice(clock)
            for event_nid, event_id, json, rejected in rows:
                if time_slice is not None and time_slice.is_over:
                    await time_slice.next()
                found.append((event_nid, Event.from_json(version, json, event_id), rejected))
        return found

    async def event_nids(
        self, room_nid: int, room_id: str, event_ids: Iterable[str]
    ) -> dict[str, int]:
        """The nids of those of the events that the room with this nid and id has."""
        found: dict[str, int] = {}
        missing = []
        for event_id in event_ids:
            stored = self._find(room_id, event_id)
            if stored is None:
                missing.append(event_id)
            else:
                found[event_id] = stored.event_nid
        if missing:
            found |= await self._db.run(storage.event_numbers, room_nid, missing)
        return found

    async def load_in_order(
        self, version: RoomVersion, event_nids: Sequence[int]
    ) -> list[StoredEvent]:
        """As `load`, as a list in the order of `event_nids`."""
        found = [event for each in event_nids if (event := self.cached(each)) is not None]
        if len(found) == len(event_nids):
            return found
        events = await self.load(version, event_nids)
        return [events[event_nid] for event_nid in event_nids if event_nid in events]

    async def load_many(
        self, version: RoomVersion, event_nids: Sequence[int], clock: Clock
    ) -> list[StoredEvent]:
        """As `load_in_order`, for any number of events: in time slices."""
        time_slice = TimeSlice(clock)
        found: list[StoredEvent] = []
        for start in range(0, len(event_nids), LOAD_BATCH_SIZE):
            if time_slice.is_over:
                await time_slice.next()
            found += await self.load_in_order(version, event_nids[start : start + LOAD_BATCH_SIZE])
        return found

    async def find(
        self, version: RoomVersion, room_nid: int, room_id: str, event_id: str
    ) -> StoredEvent | None:
        """The event with this id, if it belongs to the room with this nid and id."""
        return (await self.find_many(version, room_nid, room_id, [event_id])).get(event_id)

    async def find_many(
        self, version: RoomVersion, room_nid: int, room_id: str, event_ids: Iterable[str]
    ) -> dict[str, StoredEvent]:
        """Those of the events that the room with this nid and id has, by their ids."""
        found: dict[str, StoredEvent] = {}
        missing = []
        for event_id in event_ids:
            event = self.cached_id(room_id, event_id)
            if event is None:
                missing.append(event_id)
            else:
                found[event_id] = event
        if missing:
            event_nids = dict(await self._db.run(storage.event_numbers, room_nid, missing))
            events = await self.load(version, list(event_nids.values()))
            found |= {event_id: events[event_nid] for event_id, event_nid in event_nids.items()}
        return found

    async def rooms_with(self, event_id: str) -> list[int]:
        """The nids of the rooms that have an event with this id; versions 1 and 2 allow several."""
        return await self._db.run(storage.rooms_with_event, event_id)

    async def auth_edges(
        self, event_nids: Sequence[int], more: int = 0, lowest: int = 0
    ) -> dict[int, list[int]]:
        """The stored auth events of these events, and of up to `more` others that they lead to.

        The others are not below `lowest`. Events that are missing here have none, or none that is
        stored.
        """
        if not more:
            return dict(await self._db.run(auth_edges.auth_edges, event_nids))
        limit = len(event_nids) + more
        return dict(await self._db.run(auth_edges.auth_edges_beyond, event_nids, limit, lowest))

    async def citing(self, event_nids: Sequence[int], limit: int) -> list[tuple[int, int]]:
        """(nid, nid of an event whose auth chain has it), at most `limit` for each."""
        return await self._db.run(auth_edges.citing_events, event_nids, limit)

    async def entries(self, event_nids: Sequence[int]) -> list[tuple[int, str, int, int]]:
        """(nid, event id, type nid, state key nid) of the stored state events among these."""
        return await self._db.run(event_graph.state_entries, event_nids)

    def _from_rows(
        self,
        version_of: Callable[[int], RoomVersion],
        rows: Iterable[storage.EventRow],
        changes: Mapping[int, Sequence[EventChange]],
    ) -> list[StoredEvent]:
        events = []
        for row in rows:
            # Another reader may have loaded it while this one waited: one object for each event.
            event = self._held(row.event)
            if event is None:
                event = _from_row(version_of(row.room), row)
                for change in changes[row.event]:
                    change(event)
                self.add(event)
            events.append(event)
        return events


def _id_key(room_id: str, event_id: str) -> _IdKey:
    """The key of an event: an id that is no hash may be that of events of several rooms."""
    return (room_id, event_id) if ":" in event_id else event_id


def _from_row(version: RoomVersion, row: storage.EventRow) -> StoredEvent:
    event = Event.from_json(version, row.json, row.event_id)
    replaced = redaction = transaction = None
    if row.replaced_json is not None:
        replaced = Event.from_json(version, row.replaced_json, row.replaced_id)
    if row.redaction_json is not None:
        redaction = Event.from_json(version, row.redaction_json, row.redaction_id)
    if row.device_id is not None and row.txn_id is not None:
        path = row.txn_path or sending_path(event.room_id, event.type)
        transaction = ClientTransaction(event.sender, row.device_id, row.txn_id, path)
    return StoredEvent(
        event,
        row.event,
        row.position,
        row.state_before or EMPTY,
        row.state_after or row.state_before or EMPTY,
        stored_at=row.stored_at,
        replaces=row.replaces,
        replaced=replaced,
        redaction=redaction,
        transaction=transaction,
        status=EventStatus(row.state_before is None, row.rejected, row.soft_failed),
        topological_depth=row.depth,
    )

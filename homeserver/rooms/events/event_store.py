"""The events at hand: a bounded cache of stored events, and the way to the others.

Every event object of this process comes from here, so that what happens to one, such as its
redaction, is seen by all who hold it.
"""

from collections.abc import Iterable, Sequence
from weakref import WeakValueDictionary

from homeserver.concurrency.clock import Clock
from homeserver.concurrency.cooperative import TimeSlice
from homeserver.concurrency.lru_cache import LruCache
from homeserver.protocol.events import Event
from homeserver.protocol.room_versions import RoomVersion
from homeserver.rooms.events.event_draft import ClientTransaction, sending_path
from homeserver.rooms.events.stored_event import EventStatus, StoredEvent
from homeserver.rooms.state.node_codec import EMPTY
from homeserver.storage.database.database import Database
from homeserver.storage.rooms import auth_edges, event_graph
from homeserver.storage.rooms import events as storage

LOAD_BATCH_SIZE = 200  # events


class EventStore:
    """Stored events by number and by event id; at most `capacity` are kept in memory.

    Whatever somebody else keeps in memory is found as well: events that wait to be written are kept
    by the log, and the database does not have them yet.
    """

    def __init__(self, db: Database, capacity: int) -> None:
        self._db = db
        self.recent: LruCache[int, StoredEvent] = LruCache("events", capacity)
        self._by_number: WeakValueDictionary[int, StoredEvent] = WeakValueDictionary()
        self._by_id: WeakValueDictionary[tuple[str, str], StoredEvent] = WeakValueDictionary()

    def cached(self, number: int) -> StoredEvent | None:
        """The event, if it is at hand."""
        event = self.recent.get(number)
        return self._by_number.get(number) if event is None else event

    def add(self, event: StoredEvent) -> None:
        """Keep an event that was just made or read."""
        self.introduce(event)
        self.recent.put(event.event_nid, event)

    def introduce(self, event: StoredEvent) -> None:
        """Have an event found for as long as somebody holds it: it may never be stored."""
        self._by_number[event.event_nid] = event
        self._by_id[event.event.room_id, event.event.event_id] = event

    def disown(self, event: StoredEvent) -> None:
        """Have an event not found any more: it was not stored after all."""
        self._by_number.pop(event.event_nid, None)
        self._by_id.pop((event.event.room_id, event.event.event_id), None)

    def cached_id(self, room_id: str, event_id: str) -> StoredEvent | None:
        """The event of this room with this id, if it is at hand."""
        event = self._by_id.get((room_id, event_id))
        if event is not None:
            self.recent.get(event.event_nid)  # it counts as used
        return event

    async def load(self, version: RoomVersion, numbers: Sequence[int]) -> dict[int, StoredEvent]:
        """The events of a room of this version with these numbers, from memory or the database."""
        found: dict[int, StoredEvent] = {}
        missing = []
        for number in numbers:
            event = self.cached(number)
            if event is None:
                missing.append(number)
            else:
                found[number] = event
        if missing:
            rows = await self._db.run(storage.events_by_number, missing)
            for event in self._from_rows(version, rows):
                found[event.event_nid] = event
        return found

    async def load_bare(
        self, version: RoomVersion, numbers: Sequence[int]
    ) -> list[tuple[int, Event, bool]]:
        """(number, event, whether it was rejected) of some events.

        Those that are not at hand are read, and not kept: for one who reads so many that they would
        take the place of all others.
        """
        found: list[tuple[int, Event, bool]] = []
        missing = []
        for number in numbers:
            stored = self._by_number.get(number)
            if stored is None:
                missing.append(number)
            else:
                found.append((number, stored.event, stored.status.rejected is not None))
        if missing:
            rows = await self._db.run(storage.bare_events, missing)
            found += [
                (number, Event.from_json(version, json, event_id), rejected)
                for number, event_id, json, rejected in rows
            ]
        return found

    async def numbers(self, room: int, room_id: str, event_ids: Iterable[str]) -> dict[str, int]:
        """The numbers of those of the events that the room with this number and id has."""
        found: dict[str, int] = {}
        missing = []
        for event_id in event_ids:
            stored = self._by_id.get((room_id, event_id))
            if stored is None:
                missing.append(event_id)
            else:
                found[event_id] = stored.event_nid
        if missing:
            found |= await self._db.run(storage.event_numbers, room, missing)
        return found

    async def load_in_order(
        self, version: RoomVersion, numbers: Sequence[int]
    ) -> list[StoredEvent]:
        """The same as a list in the order of `numbers`."""
        events = await self.load(version, numbers)
        return [events[number] for number in numbers if number in events]

    async def load_many(
        self, version: RoomVersion, numbers: Sequence[int], clock: Clock
    ) -> list[StoredEvent]:
        """The same of any number of events: a few at a time, so that others are served too."""
        turn = TimeSlice(clock)
        found: list[StoredEvent] = []
        for start in range(0, len(numbers), LOAD_BATCH_SIZE):
            if turn.is_over:
                await turn.next()
            found += await self.load_in_order(version, numbers[start : start + LOAD_BATCH_SIZE])
        return found

    async def find(
        self, version: RoomVersion, room: int, room_id: str, event_id: str
    ) -> StoredEvent | None:
        """The event with this id, if it belongs to the room with this number and id."""
        return (await self.find_many(version, room, room_id, [event_id])).get(event_id)

    async def find_many(
        self, version: RoomVersion, room: int, room_id: str, event_ids: Iterable[str]
    ) -> dict[str, StoredEvent]:
        """Those of the events that the room with this number and id has, by their ids."""
        found: dict[str, StoredEvent] = {}
        missing = []
        for event_id in event_ids:
            event = self.cached_id(room_id, event_id)
            if event is None:
                missing.append(event_id)
            else:
                found[event_id] = event
        if missing:
            numbers = dict(await self._db.run(storage.event_numbers, room, missing))
            events = await self.load(version, list(numbers.values()))
            found |= {event_id: events[number] for event_id, number in numbers.items()}
        return found

    async def rooms_with(self, event_id: str) -> list[int]:
        """Numbers of the rooms that have an event with this id; versions 1 and 2 allow several."""
        return await self._db.run(storage.rooms_with_event, event_id)

    async def auth_edges(
        self, numbers: Sequence[int], more: int = 0, lowest: int = 0
    ) -> dict[int, list[int]]:
        """The stored auth events of these events, and of up to `more` others that they lead to.

        The others are not below `lowest`. Events without are left out, or have none.
        """
        if not more:
            return dict(await self._db.run(auth_edges.auth_edges, numbers))
        limit = len(numbers) + more
        return dict(await self._db.run(auth_edges.auth_edges_beyond, numbers, limit, lowest))

    async def citing(self, numbers: Sequence[int], limit: int) -> list[tuple[int, int]]:
        """(number, number of an event whose auth chain has it), at most `limit` for each."""
        return await self._db.run(auth_edges.citing_events, numbers, limit)

    async def entries(self, numbers: Sequence[int]) -> list[tuple[int, str, int, int]]:
        """(number, event id, type nid, state key nid) of the stored state events among these."""
        return await self._db.run(event_graph.state_entries, numbers)

    def _from_rows(
        self, version: RoomVersion, rows: Iterable[storage.EventRow]
    ) -> list[StoredEvent]:
        events = []
        for row in rows:
            # Another reader may have brought it while this one waited: one object an event.
            event = self._by_number.get(row.event)
            if event is None:
                event = _from_row(version, row)
                self.add(event)
            events.append(event)
        return events


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
        replaces=row.replaces,
        replaced=replaced,
        redaction=redaction,
        transaction=transaction,
        standing=EventStatus(row.state_before is None, row.rejected, row.soft_failed),
        height=row.depth,
    )

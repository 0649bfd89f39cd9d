"""Bundled aggregations of the child events of an event, for its `unsigned.m.relations`.

Edits, threads and references are bundled, as one reader may see them; reactions are not. State
events have none. Few events have children: for recently served events a cache holds which have, and
the log keeps it up to date, so that serving any other event needs no query.

Spec: https://spec.matrix.org/v1.19/client-server-api/#aggregations-of-child-events
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Any

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.concurrency.lru_cache import LruCache
from homeserver.protocol.errors import Forbidden
from homeserver.protocol.relations import REFERENCE, REPLACE, THREAD, relation_of
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.history.room_reader import RoomReader
from homeserver.rooms.history.visibility import Visibility, VisibleEvent
from homeserver.rooms.room.changes import EventAppended, EventsStored, HistoryImported
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room
from homeserver.storage.database.database import Database
from homeserver.storage.rooms import relations as storage
from homeserver.storage.rooms.names import Names

BUNDLED = (REFERENCE, REPLACE, THREAD)
CAPACITY = 100_000  # events for which the types of their children are cached
MAX_REFERENCES = 1_000  # in one response

_NONE: frozenset[str] = frozenset()
_Aggregations = dict[str, dict[str, Any]]  # event id -> relation type -> the aggregation


class _Reader(msgspec.Struct, frozen=True):
    """A user who gets aggregations; `until` is the position up to which they see the room."""

    room: Room
    caller: Requester
    until: int
    ignored: frozenset[int]  # nids of users
    own: int | None  # the reader's nid
    now_ms: int


class BundledAggregations:
    """Aggregates children. Subscribe `apply` to the log."""

    def __init__(
        self,
        db: Database,
        names: Names,
        rooms: RoomRegistry,
        reader: RoomReader,
        visibility: Visibility,
    ) -> None:
        self._db = db
        self._names = names
        self._rooms = rooms
        self._reader = reader
        self._visibility = visibility
        self._types: LruCache[str, frozenset[str]] = LruCache("relation_types", CAPACITY)
        self._changes = 0

    def apply(self, entries: Sequence[Any]) -> None:
        """Record the children in new events (called by the log)."""
        for entry in entries:
            if isinstance(entry, EventAppended):
                self._record(entry.stored)
            elif isinstance(entry, (EventsStored, HistoryImported)):
                for stored in entry.events:
                    self._record(stored)

    def _record(self, stored: StoredEvent) -> None:
        relation = relation_of(stored.event)
        if stored.position is not None and relation is not None and relation.rel_type in BUNDLED:
            self._changes += 1
            known = self._types.peek(relation.parent_id)
            if known is not None:
                self._types.put(relation.parent_id, known | {relation.rel_type})

    async def bundled(
        self, caller: Requester, ignored: Iterable[str], seen: Sequence[VisibleEvent]
    ) -> list[VisibleEvent]:
        """The same events of one room, with the aggregations of their children as JSON.

        Children sent by `ignored` users, or that the caller may not see, do not count.
        """
        parents = [event.stored for event in seen if event.stored.event.state_key is None]
        types = await self._types_of([stored.event.event_id for stored in parents])
        if not any(types.values()):
            return list(seen)
        try:
            access = await self._reader.access(caller.user_id, parents[0].event.room_id)
        except Forbidden:  # the caller has forgotten the room meanwhile
            return list(seen)
        reader = await self._reader_for(access.room, caller, access.until, ignored)
        found = await self._aggregate(reader, parents, BUNDLED)
        return [
            event._replace(relations=msgspec.json.encode(found[event.stored.event.event_id]))
            if event.stored.event.event_id in found
            else event
            for event in seen
        ]

    async def get_ready(self, event_ids: Sequence[str]) -> None:
        """Have in memory which of the events have children, read together."""
        peek = self._types.peek
        missing = [event_id for event_id in event_ids if peek(event_id) is None]
        if missing:
            await self._types_of(missing)

    async def _reader_for(
        self, room: Room, caller: Requester, until: int, ignored: Iterable[str]
    ) -> _Reader:
        numbers = await self._names.find_nids({caller.user_id, *ignored})
        own = numbers.pop(caller.user_id, None)
        now_ms = self._rooms.local_server.now_ms()
        return _Reader(room, caller, until, frozenset(numbers.values()), own, now_ms)

    async def _types_of(self, event_ids: Sequence[str]) -> dict[str, frozenset[str]]:
        """The relation types of the children of each event."""
        types: dict[str, frozenset[str]] = {}
        missing: list[str] = []
        for event_id in event_ids:
            known = self._types.get(event_id)
            if known is None:
                missing.append(event_id)
            else:
                types[event_id] = known
        if not missing:
            return types
        changes = self._changes
        loaded = dict.fromkeys(missing, _NONE)
        for parent_id, rel_type in await self._db.run(storage.relation_types, missing, BUNDLED):
            loaded[parent_id] |= {rel_type}
        if changes == self._changes:
            # Otherwise the log may have changed the children meanwhile.
            for event_id, found in loaded.items():
                self._types.put(event_id, found)
        return types | loaded

    async def _aggregate(
        self, reader: _Reader, parents: Sequence[StoredEvent], rel_types: Collection[str]
    ) -> _Aggregations:
        types = await self._types_of([stored.event.event_id for stored in parents])
        found: _Aggregations = defaultdict(dict)
        for rel_type, add in (
            (REPLACE, self._add_edits),
            (THREAD, self._add_threads),
            (REFERENCE, self._add_references),
        ):
            concerned = {
                stored.event.event_id: stored
                for stored in parents
                if rel_type in types[stored.event.event_id]
            }
            if concerned and rel_type in rel_types:
                await add(found, reader, concerned)
        return found

    async def _add_edits(
        self, found: _Aggregations, reader: _Reader, parents: dict[str, StoredEvent]
    ) -> None:
        """Add the latest valid edit of each event that can be edited.

        Spec: https://spec.matrix.org/v1.19/client-server-api/#server-side-aggregation-of-mreplace-relationships
        """
        editable = {
            event_id: stored for event_id, stored in parents.items() if _is_editable(stored)
        }
        rows = await self._db.run(
            storage.latest_edits, reader.room.room_nid, list(editable), reader.until
        )
        names = await self._names.names({nid for row in rows for nid in (row.type, row.sender)})
        edits = {
            row.child: row.parent_id
            for row in rows
            if names[row.type] == editable[row.parent_id].event.type
            and names[row.sender] == editable[row.parent_id].event.sender
        }
        for seen in await self._visible(reader, list(edits)):
            found[edits[seen.stored.event_nid]][REPLACE] = _event_json(reader, seen)

    async def _add_threads(
        self, found: _Aggregations, reader: _Reader, parents: dict[str, StoredEvent]
    ) -> None:
        """Add a summary of each event's thread.

        Spec: https://spec.matrix.org/v1.19/client-server-api/#server-side-aggregation-of-mthread-relationships
        """
        rows = await self._db.run(
            storage.thread_parts, reader.room.room_nid, list(parents), reader.until
        )
        threads: dict[str, list[storage.ThreadPart]] = defaultdict(list)
        for part in rows:
            if part.sender not in reader.ignored:
                threads[part.parent_id].append(part)
        latest = {max(part.latest for part in parts)[-1]: root for root, parts in threads.items()}
        shown = await self._visible(reader, list(latest))
        # A thread contains no threads, so this ends.
        inner = await self._aggregate(reader, [seen.stored for seen in shown], (REFERENCE, REPLACE))
        for seen in shown:
            root = latest[seen.stored.event_nid]
            relations = inner.get(seen.stored.event.event_id)
            if relations is not None:
                seen = seen._replace(relations=msgspec.json.encode(relations))
            found[root][THREAD] = {
                "latest_event": _event_json(reader, seen),
                "count": sum(part.count for part in threads[root]),
                "current_user_participated": parents[root].event.sender == reader.caller.user_id
                or any(part.sender == reader.own for part in threads[root]),
            }

    async def _add_references(
        self, found: _Aggregations, reader: _Reader, parents: dict[str, StoredEvent]
    ) -> None:
        """Add the ids of the events that refer to each event.

        Spec: https://spec.matrix.org/v1.19/client-server-api/#server-side-aggregation-of-mreference
        """
        rows = await self._db.run(
            storage.references, reader.room.room_nid, list(parents), reader.until, MAX_REFERENCES
        )
        for row in rows:
            if row.sender not in reader.ignored:
                chunk = found[row.parent_id].setdefault(REFERENCE, {"chunk": []})["chunk"]
                chunk.append({"event_id": row.child_id})

    async def _visible(self, reader: _Reader, numbers: Sequence[int]) -> list[VisibleEvent]:
        stored = await self._rooms.load_events_in_order(reader.room, numbers)
        return await self._visibility.visible(reader.room, reader.caller.user_id, stored)


def _is_editable(stored: StoredEvent) -> bool:
    if stored.redaction is not None:
        return False
    relation = relation_of(stored.event)
    return relation is None or relation.rel_type != REPLACE


def _event_json(reader: _Reader, seen: VisibleEvent) -> msgspec.Raw:
    caller = reader.caller
    return msgspec.Raw(
        seen.stored.client_json(
            reader.now_ms,
            room_id=True,
            device=(caller.user_id, caller.transaction_scope),
            membership=seen.membership,
            relations=seen.relations,
        )
    )

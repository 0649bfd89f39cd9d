"""Threads: the part of a room's timeline that an event belongs to.

An event lies in a thread if it says so, or if following its relations leads to an event that does.
The root of a thread lies in the main timeline, as do events related to the root in another way.
Relations are followed a few steps only, as the specification recommends, so that long chains cost
nothing.

Spec: https://spec.matrix.org/v1.19/client-server-api/#threaded-read-receipts
"""

from homeserver.concurrency.lru_cache import LruCache
from homeserver.concurrency.not_in_memory import NotInMemory
from homeserver.protocol.events import Event
from homeserver.protocol.identifiers import is_valid_event_id
from homeserver.rooms.events.event_store import EventStore
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.room.room import Room
from homeserver.rooms.room.room_receipts import MAIN

MAX_HOPS = 3
MAX_CACHED_THREADS = 50_000  # events that have a relation

_THREAD = "m.thread"


class Threads:
    """Finds the threads of events."""

    def __init__(self, events: EventStore) -> None:
        self._events = events
        # The root by the number of an event, or `MAIN`.
        self._known: LruCache[int, str] = LruCache("event_threads", MAX_CACHED_THREADS)
        self._not_in_room: LruCache[tuple[int, str], bool] = LruCache(
            "unknown_parents", MAX_CACHED_THREADS
        )  # (room, event id)

    def of(self, room: Room, stored: StoredEvent) -> str | None:
        """The id of the root of an event's thread; `None` for the main timeline.

        Raises `NotInMemory`.
        """
        if "m.relates_to" not in stored.event.content:
            return None
        root = self._known.get(stored.event_nid)
        if root is None:
            root = self._known.put(stored.event_nid, self._follow(room, stored) or MAIN)
        return None if root == MAIN else root

    def _follow(self, room: Room, stored: StoredEvent) -> str | None:
        current: StoredEvent | None = stored
        for _ in range(MAX_HOPS + 1):
            if current is None:
                return None
            rel_type, parent = _relation(current.event)
            if rel_type == _THREAD or parent is None:
                return parent
            current = self._find(room, parent)
        return None

    def _find(self, room: Room, event_id: str) -> StoredEvent | None:
        if self._not_in_room.get((room.room_nid, event_id)) or not is_valid_event_id(event_id):
            return None
        stored = self._events.cached_id(room.room_id, event_id)
        if stored is None:
            raise NotInMemory(lambda: self._load(room, event_id))
        return stored

    async def _load(self, room: Room, event_id: str) -> None:
        found = await self._events.find(room.version, room.room_nid, room.room_id, event_id)
        if found is None:
            self._not_in_room.put((room.room_nid, event_id), True)


def _relation(event: Event) -> tuple[str | None, str | None]:
    """The type of an event's relation, and the event that it relates to."""
    relates_to = event.content.get("m.relates_to")
    if not isinstance(relates_to, dict):
        return None, None
    rel_type, parent = relates_to.get("rel_type"), relates_to.get("event_id")
    if not isinstance(rel_type, str) or not isinstance(parent, str):
        return None, None
    return rel_type, parent

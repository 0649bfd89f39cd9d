"""The auth graph of a room as it is stored, for one resolution of states.

What waits to be written is known as well: an event at hand says itself what it cites, and before it
is asked what cites an event, all that has been appended to the log is waited for.
"""

from collections import deque
from collections.abc import (
    AsyncIterator,
    Callable,
    Collection,
    Coroutine,
    Iterable,
    Mapping,
    Sequence,
)
from typing import Any, ParamSpec, Protocol, TypeVar

from twisted.internet.defer import Deferred

from homeserver.protocol.event_types import POWER_LEVELS
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.resolution.auth_difference import DESCENDANTS, STEP
from homeserver.rooms.room.room import Room
from homeserver.rooms.room.room_storage import RoomStorage
from homeserver.rooms.state.node_codec import Key
from homeserver.rooms.state.tree import Difference

P = ParamSpec("P")
T = TypeVar("T")
CITED_BATCH_SIZE = max(1, 2_000 // DESCENDANTS)  # events whose descendants are read at a time


async def run_now(rule: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
    """What a function gives that does not take long."""
    return rule(*args, **options)


class RunInThread(Protocol):
    """Calls a pure function where it holds up nobody."""

    def __call__(
        self, rule: Callable[P, T], *args: P.args, **options: P.kwargs
    ) -> Coroutine[Any, Any, T]: ...


class StoredAuthIndex:
    """An `AuthIndex` over what the server has stored.

    `root` is one of the states, `differing` the entries in which it is not like all others.
    `run_in_thread` gives what a pure function gives.
    """

    def __init__(
        self,
        stores: RoomStorage,
        room: Room,
        root: bytes,
        differing: Difference,
        away: RunInThread = run_now,
    ) -> None:
        self.run_in_thread = away
        self._stores = stores
        self._room = room
        self._root = root
        self._differing = differing
        self._is_written = False
        self._edges: dict[int, Collection[int]] = {}  # what is known by now

    async def cited(
        self, events: Collection[int], more: int = 0, lowest: int = 0
    ) -> dict[int, Collection[int]]:
        """The auth events of these events; and of up to `more` others that these lead to."""
        known = self._edges
        found = {event: known[event] for event in events if event in known}
        wanted = [event for event in events if event not in found]
        for event in wanted:
            if (cited := self._said(event)) is not None:
                found[event] = known[event] = cited
        wanted = [event for event in wanted if event not in found]
        async for edges in in_parts(
            lambda part: self._stores.events.auth_edges(part, more, lowest), wanted, STEP
        ):
            known |= edges
            found |= edges
        without = [event for event in wanted if not found.get(event)]
        stored = await self._cited_by_those_at_hand(without)
        for event in without:
            found[event] = known[event] = stored.get(event, ())
        return found

    def know(self, edges: Mapping[int, Collection[int]]) -> None:
        """Take for known what some events cite."""
        self._edges |= edges

    async def citing(self, events: Collection[int], limit: int) -> dict[int, set[int]]:
        """The events whose auth chains have each of these, or `limit` of them."""
        if not self._is_written:
            await self._stores.log.written()
            self._is_written = True
        found: dict[int, set[int]] = {event: set() for event in events}
        for part in parts(events, CITED_BATCH_SIZE):
            for event, citing in await self._stores.events.citing(part, limit):
                found[event].add(citing)
        return found

    async def unconflicted_among(self, events: Collection[int]) -> set[int]:
        """Those of the events that are unconflicted entries."""
        entries: dict[Key, set[int]] = {}
        for event, _, *key in await self._entries(events):
            entries.setdefault((key[0], key[1]), set()).add(event)
        state = await self._stores.states.get_many(self._root, entries.keys() - self._differing)
        return {event for key, event in state.items() if event in entries[key]}

    async def unconflicted(self) -> Iterable[int]:
        """All unconflicted entries."""
        entries = await self._stores.states.load(self._root)
        return [event for key, event in entries.items() if key not in self._differing]

    async def power_levels_cited(
        self, events: Collection[int], more: int
    ) -> Mapping[int, int | None]:
        """The power levels event that each of these cites, and up to `more` that these lead to."""
        graph = await self.cited(events, more)
        names = await self._stores.names.nids((POWER_LEVELS, ""))
        wanted = [names[POWER_LEVELS], names[""]]
        entries = await self._entries(set().union(*graph.values()))
        levels = {event for event, _, *key in entries if key == wanted}
        found: dict[int, int | None] = {}
        for event, cited in graph.items():
            among = levels.intersection(cited)
            if len(among) > 1:
                found[event] = await self._first(event, among)
            else:
                found[event] = max(among, default=None)
        return found

    async def ids(self, events: Collection[int]) -> dict[int, str]:
        """The ids of state events by number."""
        return {event: event_id for event, event_id, *_ in await self._entries(events)}

    async def _first(self, event: int, among: Collection[int]) -> int | None:
        """The one of some auth events that an event names first."""
        loaded = await self._stores.events.load(self._room.version, [event, *among])
        numbers = {loaded[each].event.event_id: each for each in among}
        cited = loaded[event].event.auth_event_ids
        return next((numbers[event_id] for event_id in cited if event_id in numbers), None)

    async def _entries(self, events: Collection[int]) -> list[tuple[int, str, int, int]]:
        """(event, event id, type, state key) of the events, also of those that are not written."""
        entries: list[tuple[int, str, int, int]] = []
        at_hand = self._at_hand(events)
        names = await self._stores.names.nids(
            {name for each in at_hand for name in (each.event.type, each.event.state_key or "")}
        )
        for each in at_hand:
            event = each.event
            if event.state_key is not None:
                key = names[event.type], names[event.state_key]
                entries.append((each.event_nid, event.event_id, *key))
        others = set(events).difference(each.event_nid for each in at_hand)
        async for stored in in_parts(self._stores.events.entries, others, STEP):
            entries += stored
        return entries

    def _said(self, number: int) -> list[int] | None:
        """What an event cites, if it and all that it cites are at hand."""
        store, room_id = self._stores.events, self._room.room_id
        if (stored := store.cached(number)) is None:
            return None
        cited = [
            store.cached_id(room_id, each) for each in dict.fromkeys(stored.event.auth_event_ids)
        ]
        numbers = [each.event_nid for each in cited if each is not None]
        return numbers if len(numbers) == len(cited) else None

    async def _cited_by_those_at_hand(self, events: Iterable[int]) -> dict[int, list[int]]:
        stored = self._at_hand(events)
        ids = {event_id for each in stored for event_id in each.event.auth_event_ids}
        room = self._room
        found = await self._stores.events.find_many(room.version, room.room_nid, room.room_id, ids)
        return {
            each.event_nid: [
                found[cited].event_nid
                for cited in dict.fromkeys(each.event.auth_event_ids)
                if cited in found
            ]
            for each in stored
        }

    def _at_hand(self, events: Iterable[int]) -> list[StoredEvent]:
        found = (self._stores.events.cached(event) for event in events)
        return [stored for stored in found if stored is not None]


async def in_parts(
    read: Callable[[Sequence[int]], Coroutine[Any, Any, T]], events: Collection[int], size: int
) -> AsyncIterator[T]:
    """What is read of events, in parts of at most this size; the next is read meanwhile."""
    coming: deque[Deferred[T]] = deque()
    try:
        for part in parts(events, size):
            coming.append(Deferred.fromCoroutine(read(part)))
            if len(coming) > 1:
                yield await coming.popleft()
        while coming:
            yield await coming.popleft()
    finally:
        for left in coming:
            # Whoever reads ends by the failure of another part.
            left.addErrback(lambda _: None)


def parts(items: Iterable[T], size: int) -> Iterable[Sequence[T]]:
    """The items in parts of at most this size, each to be read by one statement."""
    listed = list(items)
    return (listed[start : start + size] for start in range(0, len(listed), size))

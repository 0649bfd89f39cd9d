"""The resolution of the states of a room's branches, over what the server has stored.

Where branches meet, the states after them are compared as trees, and only the differences are read:
the conflicted entries, the difference of their auth chains (`auth_difference.py`), and those other
entries that the auth rules need for these events. The rules in
`homeserver/protocol/state_resolution` decide. The same branches meet many times, in every event
that follows them: results are cached by the set of states.

Long work does not block the reactor: reading is done in parts, with pauses between them, and a
large conflict is decided in a thread. The rules are pure, so that this changes no result; they
would be slower, and harder to read, if they paused now and then.

Spec: https://spec.matrix.org/v1.19/server-server-api/#room-state-resolution
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import ParamSpec, TypeVar

import msgspec
from twisted.internet.task import deferLater

from homeserver.concurrency.lru_cache import LruCache
from homeserver.protocol.event_kinds import is_state
from homeserver.protocol.event_types import POWER_LEVELS, POWER_LEVELS_KEY
from homeserver.protocol.events import Event
from homeserver.protocol.room_versions import RoomVersion, StateResolution
from homeserver.protocol.state_resolution.ordering import power_levels_among
from homeserver.protocol.state_resolution.resolution import (
    Conflicts,
    keys_asked_for,
    resolve_conflicts,
)
from homeserver.protocol.state_resolution.v2 import Conflict
from homeserver.rooms.resolution.auth_difference import (
    auth_difference,
    events_connecting,
    power_level_chains,
)
from homeserver.rooms.resolution.auth_index import StoredAuthIndex, in_parts
from homeserver.rooms.room.changes import StateKey
from homeserver.rooms.room.room import Room
from homeserver.rooms.room.room_storage import RoomStorage
from homeserver.rooms.state.tree import Difference
from homeserver.storage.database.batch import Row

MAX_CACHED_ROWS = 50_000  # of the results that are in memory; each has a node of some hundred bytes
MIN_COUNTED_ROWS = 5  # that a result counts as, for what it takes beside its rows
MAX_COMPARED_EVENTS = (
    20_000  # events of all states together, one for each entry in which they differ
)
RUN_IN_THREAD_ABOVE = 400  # events of a conflict that is decided without a thread: about 20 ms
READ_BATCH_SIZE = 500  # events that are read by one statement


P = ParamSpec("P")
T = TypeVar("T")


class ResolvedState(msgspec.Struct, frozen=True):
    """The root of a resolved state, and the rows that make it durable, to be written with it."""

    root: bytes
    rows: Sequence[Row] = ()


class _Known(msgspec.Struct):
    """The events of a conflict and their auth events, by id, and which were rejected."""

    numbers: dict[str, int] = msgspec.field(default_factory=dict)
    ids: dict[int, str] = msgspec.field(default_factory=dict)
    events: dict[str, Event] = msgspec.field(default_factory=dict)
    rejected: set[str] = msgspec.field(default_factory=set)

    def add(self, number: int, event: Event, is_rejected: bool) -> None:
        event_id = event.event_id
        self.numbers[event_id] = number
        self.ids[number] = event_id
        self.events[event_id] = event
        if is_rejected:
            self.rejected.add(event_id)


class StateResolver:
    """Resolves states of rooms."""

    def __init__(self, stores: RoomStorage) -> None:
        self._stores = stores
        self._results: LruCache[tuple[int, frozenset[bytes]], ResolvedState] = LruCache(
            "resolved_states", MAX_CACHED_ROWS, size_of=_size
        )

    async def resolve(self, room: Room, roots: Iterable[bytes]) -> ResolvedState:
        """The state that the states with these roots resolve to."""
        distinct = frozenset(roots)
        if len(distinct) == 1:
            (root,) = distinct
            return ResolvedState(root)
        key = (room.room_nid, distinct)
        result = self._results.get(key)
        if result is None:
            result = await _Resolution(self._stores, room, sorted(distinct)).result()
            if _size(key, result) <= MAX_CACHED_ROWS:
                self._results.put(key, result)
        return result


class _Resolution:
    """One resolution of some states of a room."""

    def __init__(self, stores: RoomStorage, room: Room, roots: Sequence[bytes]) -> None:
        self._stores = stores
        self._room = room
        self._version: RoomVersion = room.version
        self._roots = roots
        self._known = _Known()
        self._is_large = False

    async def result(self) -> ResolvedState:
        differing = await self._stores.states.diff_many(self._roots)
        compared = len(differing) * len(self._roots)
        self._is_large = len(differing) > RUN_IN_THREAD_ABOVE or compared > MAX_COMPARED_EVENTS
        await self._pause()
        index = StoredAuthIndex(
            self._stores, self._room, self._roots[0], differing, self._run_in_thread
        )
        if self._is_large:
            # These events are read anyway, so their auth events need not be read from the index.
            entries = await self._load(_entries(differing))
            wanted = await self._run_in_thread(_cited_ids, entries.values())
            numbers = await self._numbers(wanted)
            index.add(await self._run_in_thread(_edges, entries, numbers))
        if self._version.state_resolution is StateResolution.V1:
            members = _entries(differing)
        else:
            members = await self._conflict(index, differing)
        self._is_large = len(members) > RUN_IN_THREAD_ABOVE or compared > MAX_COMPARED_EVENTS
        await self._pause()
        events = await self._load(members)
        await self._load_cited(events.values())
        await self._pause()
        unconflicted = await self._unconflicted(events, differing)
        await self._pause()
        conflicted = await self._by_names(differing)
        await self._pause()
        conflict = None
        if self._version.state_resolution is not StateResolution.V1:
            conflict = await self._described(index, events, unconflicted)
        known = self._known
        resolved = await self._run_in_thread(
            resolve_conflicts,
            self._version,
            unconflicted,
            conflicted,
            known.events,
            known.rejected,
            conflict,
        )
        return await self._changed(conflicted, resolved)

    async def _run_in_thread(self, rule: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
        """The result of a pure function, in a thread if that may take long."""
        if self._is_large:
            return await self._stores.states.threads.run(rule, *args, **options)
        return rule(*args, **options)

    async def _pause(self) -> None:
        """Yield to the reactor, if this takes long."""
        if self._is_large:
            # An import at the top of the file would choose the reactor of the process.
            from twisted.internet import reactor

            await deferLater(reactor, 0)

    async def _conflict(self, index: StoredAuthIndex, differing: Difference) -> set[int]:
        """The full conflicted set."""
        states: dict[int, int] = {}
        for values in differing.values():
            for place, event in enumerate(values):
                if event is not None:
                    states[event] = states.get(event, 0) | 1 << place
        everywhere = (1 << len(self._roots)) - 1
        members = states.keys() | await auth_difference(states, everywhere, index)
        if self._version.state_resolution is StateResolution.V2_1:
            members |= await events_connecting(states, index)
        return members

    async def _described(
        self,
        index: StoredAuthIndex,
        events: Mapping[int, Event],
        unconflicted: dict[StateKey, str],
    ) -> Conflict:
        """The conflict as a value of the rules."""
        members = {event.event_id: event for event in events.values()}
        power_levels = await self._power_levels(index, members, unconflicted)
        graph = await self._run_in_thread(_auth_events, members)
        return Conflict(members.keys(), graph.__getitem__, power_levels.__getitem__)

    async def _power_levels(
        self,
        index: StoredAuthIndex,
        members: Mapping[str, Event],
        unconflicted: dict[StateKey, str],
    ) -> dict[str, str | None]:
        """The power levels event that an event of the conflict refers to, and so on."""
        known = self._known
        cited = await self._run_in_thread(_cited_power_levels, members, known.events)
        starts = {each for each in cited.values() if each is not None}
        starts |= {event_id for event_id, event in members.items() if _is_power_levels(event)}
        if (current := unconflicted.get(POWER_LEVELS_KEY)) is not None:
            starts.add(current)
        chains = await power_level_chains({known.numbers[each] for each in starts}, index)
        ids = await index.ids(chains.keys())
        return cited | {
            ids[event]: None if before is None else ids[before] for event, before in chains.items()
        }

    async def _unconflicted(
        self, events: Mapping[int, Event], differing: Difference
    ) -> dict[StateKey, str]:
        """The unconflicted entries that the rules need."""
        stores = self._stores
        wanted = await self._run_in_thread(keys_asked_for, self._version, list(events.values()))
        names = await stores.names.find_nids({name for key in wanted for name in key})
        keys = {
            (names[key[0]], names[key[1]]): key
            for key in wanted
            if key[0] in names and key[1] in names
        }
        entries = await stores.states.get_many(self._roots[0], keys.keys() - differing)
        await self._load(entries.values())
        return {keys[key]: self._known.ids[number] for key, number in entries.items()}

    async def _by_names(self, differing: Difference) -> Conflicts:
        names = await self._stores.names.names({nid for key in differing for nid in key})
        ids = self._known.ids
        return {
            (names[key[0]], names[key[1]]): [
                None if number is None else ids[number] for number in values
            ]
            for key, values in differing.items()
        }

    async def _load(self, numbers: Iterable[int]) -> dict[int, Event]:
        """Load events, by nid."""
        ids, events = self._known.ids, self._known.events
        found: dict[int, Event] = {}
        wanted: list[int] = []
        for number in numbers:
            if (event_id := ids.get(number)) is None:
                wanted.append(number)
            else:
                found[number] = events[event_id]
        read = self._read_bare if self._is_large else self._read
        async for part in in_parts(read, wanted, READ_BATCH_SIZE):
            for number, event, is_rejected in part:
                self._known.add(number, event, is_rejected)
                found[number] = event
        return found

    async def _read(self, numbers: Sequence[int]) -> list[tuple[int, Event, bool]]:
        found = await self._stores.events.load(self._version, numbers)
        return [
            (number, stored.event, stored.status.rejected is not None)
            for number, stored in found.items()
        ]

    async def _read_bare(self, numbers: Sequence[int]) -> list[tuple[int, Event, bool]]:
        return await self._stores.events.load_bare(self._version, numbers)

    async def _load_cited(self, events: Iterable[Event]) -> None:
        """Load the auth events of events, and the create event."""
        wanted = await self._run_in_thread(_cited_ids, events)
        if self._version.room_id_is_create_hash:
            wanted.add("$" + self._room.room_id[1:])
        numbers = await self._numbers(wanted)
        await self._load(numbers.values())

    async def _numbers(self, event_ids: AbstractSet[str]) -> dict[str, int]:
        """The nids of those of the events that are here."""
        room, known = self._room, self._known.numbers
        missing = list(event_ids - known.keys())
        for start in range(0, len(missing), READ_BATCH_SIZE):
            part = missing[start : start + READ_BATCH_SIZE]
            known |= await self._stores.events.event_nids(room.room_nid, room.room_id, part)
        return {event_id: known[event_id] for event_id in event_ids if event_id in known}

    async def _changed(self, conflicted: Conflicts, resolved: dict[StateKey, str]) -> ResolvedState:
        """The state tree of a result, by its difference from one of the states."""
        keys = {*conflicted, *resolved}
        nids = await self._stores.names.nids({name for key in keys for name in key})
        numbers = self._known.numbers
        changes = {
            (nids[key[0]], nids[key[1]]): numbers[resolved[key]] if key in resolved else None
            for key in keys
        }
        return ResolvedState(*await self._stores.states.change(self._roots[0], changes))


def _size(key: tuple[int, frozenset[bytes]], result: ResolvedState) -> int:
    """The size of a result in the cache: its rows, and the roots that it is found by."""
    return max(len(result.rows) + len(key[1]), MIN_COUNTED_ROWS)


def _entries(differing: Difference) -> set[int]:
    return {event for values in differing.values() for event in values if event is not None}


def _cited_ids(events: Iterable[Event]) -> set[str]:
    return {each for event in events for each in event.auth_event_ids}


def _edges(events: Mapping[int, Event], numbers: Mapping[str, int]) -> dict[int, list[int]]:
    return {
        number: [numbers[each] for each in dict.fromkeys(event.auth_event_ids) if each in numbers]
        for number, event in events.items()
    }


def _cited_power_levels(
    members: Mapping[str, Event], events: Mapping[str, Event]
) -> dict[str, str | None]:
    return {
        event_id: power_levels_among(event.auth_event_ids, events)
        for event_id, event in members.items()
    }


def _auth_events(members: Mapping[str, Event]) -> dict[str, list[str]]:
    return {
        event_id: [each for each in event.auth_event_ids if each in members]
        for event_id, event in members.items()
    }


def _is_power_levels(event: Event) -> bool:
    return is_state(event, POWER_LEVELS)

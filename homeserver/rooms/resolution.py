"""Resolving the states of a room's branches to one, over what the server has stored.

Where branches meet, the states after them are compared as trees, so that only what differs is
looked at, and the rules in `homeserver/protocol/state_resolution` decide. The same branches meet
many times, in every event that follows them: results are remembered by the set of states.

Spec: https://spec.matrix.org/v1.19/server-server-api/#room-state-resolution
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from homeserver.protocol.events import Event
from homeserver.protocol.room_versions import RoomVersion
from homeserver.protocol.state_resolution.resolution import Conflicts, resolve_conflicts
from homeserver.rooms.room import Room
from homeserver.rooms.stored_event import StoredEvent
from homeserver.rooms.stores import Stores
from homeserver.storage.batch import Row

REMEMBERED = 10_000  # results


@dataclass(frozen=True, slots=True)
class Resolved:
    """The root of a resolved state, and the rows that make it durable, to be written with it."""

    root: bytes
    rows: Sequence[Row] = ()


class StateResolver:
    """Resolves states of rooms."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._results: OrderedDict[tuple[int, frozenset[bytes]], Resolved] = OrderedDict()

    async def resolve(self, room: Room, roots: Iterable[bytes]) -> Resolved:
        """The state that the states with these roots resolve to."""
        distinct = frozenset(roots)
        if len(distinct) == 1:
            (root,) = distinct
            return Resolved(root)
        key = (room.number, distinct)
        result = self._results.get(key)
        if result is None:
            result = await self._resolve(room, sorted(distinct))
            self._results[key] = result
            if len(self._results) > REMEMBERED:
                self._results.popitem(last=False)
        else:
            self._results.move_to_end(key)
        return result

    async def _resolve(self, room: Room, roots: Sequence[bytes]) -> Resolved:
        stores, version = self._stores, room.version
        differing = await stores.states.diff_many(roots)
        entries = await stores.states.load(roots[0])
        names = await stores.names.names({nid for key in (*entries, *differing) for nid in key})
        numbers = {number for values in differing.values() for number in values if number}
        numbers.update(entries.values())
        events = await stores.events.load(version, list(numbers))
        graph, rejected = await self._auth_chains(room, events.values())
        conflicted: Conflicts = {
            (names[key[0]], names[key[1]]): [
                None if number is None else events[number].event.event_id for number in values
            ]
            for key, values in differing.items()
        }
        unconflicted = {
            (names[key[0]], names[key[1]]): events[number].event.event_id
            for key, number in entries.items()
            if key not in differing
        }
        resolved = resolve_conflicts(version, unconflicted, conflicted, graph, rejected)
        return await self._changed(room, roots[0], conflicted, resolved)

    async def _changed(
        self,
        room: Room,
        root: bytes,
        conflicted: Conflicts,
        resolved: dict[tuple[str, str], str],
    ) -> Resolved:
        """The state tree of a result, by its difference from one of the states."""
        stores = self._stores
        keys = {*conflicted, *resolved}
        nids = await stores.names.nids({name for key in keys for name in key})
        found = await stores.events.find_many(
            room.version, room.number, room.room_id, set(resolved.values())
        )
        changes = {
            (nids[key[0]], nids[key[1]]): found[resolved[key]].number if key in resolved else None
            for key in keys
        }
        return Resolved(*await stores.states.change(root, changes))

    async def _auth_chains(
        self, room: Room, events: Iterable[StoredEvent]
    ) -> tuple[dict[str, Event], set[str]]:
        """The events and all that authorise them, by id, and which of them were rejected."""
        version: RoomVersion = room.version
        graph: dict[str, Event] = {}
        rejected: set[str] = set()
        level = list(events)
        while level:
            wanted: set[str] = set()
            for stored in level:
                event = stored.event
                graph[event.event_id] = event
                if stored.standing.rejected is not None:
                    rejected.add(event.event_id)
                wanted.update(event.auth_event_ids)
                if version.room_id_is_create_hash:
                    wanted.add("$" + event.room_id[1:])
            found = await self._stores.events.find_many(
                version, room.number, room.room_id, wanted.difference(graph)
            )
            level = list(found.values())
        return graph, rejected

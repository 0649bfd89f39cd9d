"""The storage that writers of rooms use: the log, names, state trees, events.

A writer decides and writes without yielding to the reactor. If something is not in memory the
attempt ends with `NotInMemory`, whose `load` loads what is missing, and the attempt is repeated
from the start.
"""

from collections.abc import Iterable, Sequence
from functools import partial

import msgspec

from homeserver.concurrency.not_in_memory import NotInMemory
from homeserver.protocol.events import Event
from homeserver.protocol.room_versions import RoomVersion
from homeserver.rooms.events.event_draft import ClientTransaction
from homeserver.rooms.events.event_store import EventStore
from homeserver.rooms.events.stored_event import ACCEPTED, EventStatus, StoredEvent
from homeserver.rooms.room.changes import StateKey
from homeserver.rooms.state.node_codec import EMPTY
from homeserver.rooms.state.store import StateStore
from homeserver.storage.rooms.names import Names
from homeserver.streams.log import Log


class EventsNotInMemory(NotInMemory):
    """Required events of a room are not in memory; `numbers` are their nids."""

    def __init__(self, events: EventStore, version: RoomVersion, numbers: Sequence[int]) -> None:
        super().__init__(partial(events.load, version, numbers))
        self.numbers = numbers


def unplaced_event(
    log: Log,
    event: Event,
    status: EventStatus = ACCEPTED,
    transaction: ClientTransaction | None = None,
) -> StoredEvent:
    """An event that is new here, and has no place in the graph yet."""
    return StoredEvent(
        event,
        log.next_event_number(),
        None,
        EMPTY,
        EMPTY,
        stored_at=log.next_position(),
        status=status,
        transaction=transaction,
    )


class RoomStorage(msgspec.Struct, frozen=True):
    """The storage of a writer."""

    log: Log
    names: Names
    states: StateStore
    events: EventStore

    async def state_at(
        self, version: RoomVersion, root: bytes, keys: Iterable[StateKey]
    ) -> dict[StateKey, StoredEvent]:
        """The state events with these keys in the state with this root."""
        numbers = await self.nids_at(root, keys)
        events = await self.events.load(version, list(numbers.values()))
        return {key: events[number] for key, number in numbers.items()}

    async def nids_at(self, root: bytes, keys: Iterable[StateKey]) -> dict[StateKey, int]:
        """The nids of the state events with these keys in the state with this root."""
        wanted = list(keys)
        if not wanted:
            return {}
        names = await self.names.find_nids({name for key in wanted for name in key})
        numbered = {
            key: (names[key[0]], names[key[1]])
            for key in wanted
            if key[0] in names and key[1] in names
        }
        entries = await self.states.get_many(root, numbered.values())
        return {key: entries[entry] for key, entry in numbered.items() if entry in entries}

    async def changes_between(
        self, version: RoomVersion, old: bytes, new: bytes
    ) -> dict[StateKey, StoredEvent | None]:
        """The entries of one state that differ from another; `None` for those that it lacks."""
        if old == new:
            return {}
        changed = await self.states.diff(old, new)
        names = await self.names.names({nid for key in changed for nid in key})
        numbers = [after for _, after in changed.values() if after is not None]
        events = await self.events.load(version, numbers)
        return {
            (names[type_nid], names[key_nid]): None if after is None else events[after]
            for (type_nid, key_nid), (_, after) in changed.items()
        }

    async def entries_before(self, old: bytes, new: bytes) -> dict[StateKey, int | None]:
        """The nids of the entries of `old` that differ in `new`; `None` for those only in `new`."""
        if old == new:
            return {}
        changed = await self.states.diff(old, new)
        names = await self.names.names({nid for key in changed for nid in key})
        return {
            (names[type_nid], names[key_nid]): before
            for (type_nid, key_nid), (before, _) in changed.items()
        }

"""Active rooms: those that may have something new for a reader whose change queue has a gap.

Rooms in memory are cheap to check; of the others, only rooms with something new are worth loading.
"""

from collections.abc import Collection, Iterable, Sequence

import msgspec

from homeserver.rooms.room.registry import RoomRegistry
from homeserver.storage.database.database import Database
from homeserver.storage.rooms.newest_events import rooms_with_events_after
from homeserver.storage.rooms.partial_rooms import rooms_with_full_state_after
from homeserver.streams.sync_tokens import SyncToken
from homeserver.sync.sections.preparation import EphemeralEvents


class ActiveRooms(msgspec.Struct, frozen=True):
    """Finds active rooms, and loads them."""

    db: Database
    rooms: RoomRegistry
    ephemeral: Sequence[EphemeralEvents]

    async def since(self, room_nids: Iterable[int], since: SyncToken) -> set[int]:
        """Those of the rooms that may have new events or state above a token."""
        active = set(room_nids)
        silent = [nid for nid in active if self.rooms.loaded(nid) is None]
        if silent:
            active.difference_update(silent)
            active.update(await self.db.run(rooms_with_events_after, silent, since.base))
            active.update(await self.db.run(rooms_with_full_state_after, silent, since.base))
        return active

    async def with_ephemeral(self, room_nids: Collection[int], since: SyncToken) -> set[int]:
        """The same with the rooms that may have new ephemeral events."""
        active = await self.since(room_nids, since)
        silent = [nid for nid in room_nids if nid not in active]
        for source in self.ephemeral if silent else ():
            active.update(await source.changed_rooms(silent, since.base))
        return active

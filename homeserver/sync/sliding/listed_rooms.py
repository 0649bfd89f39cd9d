"""Rooms as lists see them: their newest event, their type, and whether they are encrypted.

A user's list may have thousands of rooms, of which few are in memory. So what lists are sorted and
filtered by is a small value for each room, which follows the log; what is missing is read for all
rooms of a list with one statement.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from homeserver.concurrency.lru_cache import LruCache
from homeserver.protocol.event_types import (
    CREATE,
    CREATE_KEY,
    ENCRYPTION,
    ENCRYPTION_KEY,
    SPACE_CHILD,
)
from homeserver.rooms.discovery.room_summaries import RoomSummaries
from homeserver.rooms.room.changes import EventAppended, StateChanged
from homeserver.rooms.room.event_rows import room_type_of
from homeserver.storage.database.database import Database
from homeserver.storage.rooms.newest_events import listed_rooms
from homeserver.storage.rooms.rooms import complete_traits

FILTERED_BY = (CREATE, ENCRYPTION, SPACE_CHILD)  # the types of state events
MAX_ROOMS = 200_000  # about 100 bytes each


class ListedRoom:
    """What lists know of one room: `position` is that of its newest event, or 0.

    `version` is that of `ListedRooms` since which filters see the room as it is.
    """

    __slots__ = ("is_encrypted", "position", "room_type", "version")

    def __init__(self, position: int, room_type: str | None, is_encrypted: bool) -> None:
        self.position = position
        self.room_type = room_type
        self.is_encrypted = is_encrypted
        self.version = 0


class ListedRooms:
    """The listed rooms by their nids. Subscribe `apply` to the log."""

    def __init__(self, db: Database, summaries: RoomSummaries) -> None:
        self._db = db
        self._summaries = summaries
        self._rooms: LruCache[int, ListedRoom] = LruCache("listed_rooms", MAX_ROOMS)
        # What was published while rooms are being read, which may not see it.
        self._loads: dict[object, list[StateChanged]] = {}
        self.version = 0  # changes with everything but positions

    def apply(self, entries: Sequence[Any]) -> None:
        """Follow the log."""
        for entry in entries:
            if isinstance(entry, StateChanged):
                room = self._rooms.peek(entry.room_nid)
                if any(key[0] in FILTERED_BY for key in entry.changes):
                    self.version += 1
                    if room is not None:
                        room.version = self.version
                if room is not None:
                    _follow(room, entry)
                for missed in self._loads.values():
                    missed.append(entry)

    def loaded(self, room_nid: int) -> ListedRoom | None:
        """A room as of now, if it is in memory."""
        return self._rooms.peek(room_nid)

    async def of(self, room_nids: Collection[int]) -> Mapping[int, ListedRoom]:
        """These rooms, as of now; the values belong to the cache."""
        peek = self._rooms.peek
        found = {nid: room for nid in room_nids if (room := peek(nid)) is not None}
        if len(found) < len(room_nids):
            missing = [nid for nid in room_nids if nid not in found]
            found |= await self._load(missing)
        return found

    async def _load(self, room_nids: Sequence[int]) -> dict[int, ListedRoom]:
        load, missed = object(), list[StateChanged]()
        self._loads[load] = missed
        try:
            loaded = await self._read(room_nids)
        finally:
            del self._loads[load]
        for entry in missed:
            room = loaded.get(entry.room_nid)
            if room is not None:
                _follow(room, entry)
        for nid, room in loaded.items():
            room.version = self.version
            loaded[nid] = self._rooms.setdefault(nid, room)
        return loaded

    async def _read(self, room_nids: Sequence[int]) -> dict[int, ListedRoom]:
        # Rooms that are not found have no events: the server was never in them.
        read = {nid: ListedRoom(0, None, False) for nid in room_nids}
        for nid, position, room_type, is_encrypted in await self._db.run(listed_rooms, room_nids):
            if room_type is None or is_encrypted is None:
                room_type, is_encrypted = await self._complete(nid)
            read[nid] = ListedRoom(position, room_type or None, is_encrypted)
        return read

    async def _complete(self, nid: int) -> tuple[str, bool]:
        """The type of a room, and whether it is encrypted, where no column says so yet."""
        summary = await self._summaries.of(nid)
        room_type = (summary.room_type if summary is not None else None) or ""
        is_encrypted = summary is not None and summary.encryption is not None
        await self._db.run(complete_traits, nid, room_type, is_encrypted)
        return room_type, is_encrypted


def _follow(room: ListedRoom, entry: StateChanged) -> None:
    if isinstance(entry, EventAppended):
        room.position = max(room.position, entry.position)
    create = entry.changes.get(CREATE_KEY)
    if create is not None:
        room.room_type = room_type_of(create.event.content) or None
    if ENCRYPTION_KEY in entry.changes:
        room.is_encrypted = entry.changes[ENCRYPTION_KEY] is not None

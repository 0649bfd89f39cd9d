"""The servers in rooms: those that EDUs about a local user go to, and those to fetch from."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from homeserver.concurrency.cooperative import TimeSlice
from homeserver.concurrency.lru_cache import LruCache
from homeserver.rooms.room.changes import StateChanged
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room
from homeserver.storage.database.database import Database
from homeserver.storage.federation.room_servers import servers_in_rooms

MAX_ROOMS = 50_000  # rooms not in memory, with cached servers
ROOMS_AT_ONCE = 50  # rooms of a time slice, and of a query


def likely_servers(room: Room, own_name: str, most: int) -> list[str]:
    """Up to `most` other servers in the room, those with the most members first.

    These have probably been in the room for long, and are probably up. During partial state, the
    server that responded to our `send_join` comes first.
    """
    first = () if room.partial is None else room.partial.servers[:most]
    largest = [name for name, _ in room.joined_servers.most_common(most + 1)]
    named = dict.fromkeys([*first, *largest])
    return [name for name in named if name != own_name][:most]


class RoomServers:
    """The other servers in rooms, also in those that are not in memory.

    `apply` is to be subscribed to the log, after the rooms.
    """

    def __init__(self, rooms: RoomRegistry, db: Database) -> None:
        self._rooms = rooms
        self._db = db
        self._cold: LruCache[int, frozenset[str]] = LruCache("room_servers", MAX_ROOMS)

    def apply(self, entries: Sequence[Any]) -> None:
        """Drop the cached servers of rooms that changed (called by the log)."""
        for entry in entries:
            if isinstance(entry, StateChanged):
                self._cold.pop(entry.room_nid)

    def known(self, room_nids: Iterable[int]) -> tuple[set[str], list[int]]:
        """The servers in rooms that are in memory or cached, and the nids of the other rooms."""
        servers: set[str] = set()
        unknown: list[int] = []
        for room_nid in room_nids:
            room = self._rooms.loaded(room_nid)
            found: Collection[str] | None = (
                self._cold.get(room_nid) if room is None else room.servers
            )
            if found is None:
                unknown.append(room_nid)
            else:
                servers.update(found)
        servers.discard(self._rooms.local_server.server_name)
        return servers, unknown

    async def in_all(self, room_nids: Sequence[int]) -> set[str]:
        """The servers in rooms, of which those that are not in memory are read."""
        servers: set[str] = set()
        time_slice = TimeSlice(self._rooms.local_server.clock)
        for at in range(0, len(room_nids), ROOMS_AT_ONCE):
            found, unknown = self.known(room_nids[at : at + ROOMS_AT_ONCE])
            servers |= found
            if unknown:
                await self.load(unknown)
                servers |= self.known(unknown)[0]
            if time_slice.is_over:
                await time_slice.next()
        return servers

    async def load(self, room_nids: Sequence[int]) -> None:
        """Read the servers in rooms that are not in memory; `known` finds them afterwards."""
        servers: dict[int, set[str]] = {room_nid: set() for room_nid in room_nids}
        for room_nid, server in await self._db.run(servers_in_rooms, room_nids):
            servers[room_nid].add(server)
        for room_nid, found in servers.items():
            # If the room was loaded meanwhile, it is more up to date.
            if self._rooms.loaded(room_nid) is None:
                self._cold.put(room_nid, frozenset(found))

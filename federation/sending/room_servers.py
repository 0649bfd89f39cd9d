"""The servers in rooms: who is told of users there, and who is asked for what is not here."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from homeserver.concurrency.lru_cache import LruCache
from homeserver.rooms.room.changes import StateChanged
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room
from homeserver.storage.database.database import Database
from homeserver.storage.federation.room_servers import servers_in_rooms

MAX_ROOMS = 50_000  # not in memory, whose servers are remembered


def likely_servers(room: Room, own_name: str, most: int) -> list[str]:
    """Up to `most` other servers in the room, those with the most members first.

    These are likely to have been there for long, and to be up. While most members are not known,
    the server that let us in comes first.
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

    def apply(self, facts: Sequence[Any]) -> None:
        """A reader of the log: what was remembered of a room that changes is out of date."""
        for fact in facts:
            if isinstance(fact, StateChanged):
                self._cold.pop(fact.room_nid)

    def known(self, numbers: Iterable[int]) -> tuple[set[str], list[int]]:
        """The servers in rooms as far as that is in memory, and the rooms of which it is not."""
        servers: set[str] = set()
        unknown: list[int] = []
        for number in numbers:
            room = self._rooms.loaded(number)
            found: Collection[str] | None = self._cold.get(number) if room is None else room.servers
            if found is None:
                unknown.append(number)
            else:
                servers.update(found)
        servers.discard(self._rooms.local_server.server_name)
        return servers, unknown

    async def load(self, numbers: Sequence[int]) -> None:
        """Read the servers in rooms that are not in memory, which are `known` then."""
        servers: dict[int, set[str]] = {number: set() for number in numbers}
        for number, server in await self._db.run(servers_in_rooms, numbers):
            servers[number].add(server)
        for number, found in servers.items():
            # Whoever has loaded the room meanwhile knows better.
            if self._rooms.loaded(number) is None:
                self._cold.put(number, frozenset(found))

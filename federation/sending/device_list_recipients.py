"""Which servers receive changes of local users' device lists: they are put into the outbox.

A change goes to all servers in the user's rooms. Servers that share a room with a user for the
first time get the user's last change, too: its `prev_id` names one that they do not know, so they
fetch the whole list. A large room may bring many users and servers together at once; what is too
much is left out, since servers also fetch the lists that they need when they need them.

For a server that is unavailable only the newest change of each user is kept. When it is back, it
notices the gap in the same way.

Spec: https://spec.matrix.org/v1.19/server-server-api/#device-management
"""

from collections.abc import Collection, Iterable, Sequence

from federation.sending.device_list_items import (
    DeviceListItem,
    MembersKnown,
    OwnListChanged,
    UsersMet,
)
from federation.sending.room_servers import RoomServers
from federation.sending.sender import Sender
from homeserver.concurrency.cooperative import (
    CHECK_EVERY_ITEMS,
    TimeSlice,
    build_present_cooperatively,
)
from homeserver.concurrency.lru_cache import LruCache
from homeserver.encryption.changes import DeviceListsQueued
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room import Room
from homeserver.rooms.room.user_rooms import UserRooms
from homeserver.storage.database.batch import Row
from homeserver.storage.database.database import Database
from homeserver.storage.encryption.device_list_outbox import (
    QUEUE_DEVICE_LIST,
    REPLACE_EARLIER_CHANGES,
)
from homeserver.storage.encryption.device_lists import DeviceListRow, device_lists_of
from homeserver.streams.log import Log

MAX_USERS = 1_000  # local users whose lists a server gets because it joined a room
MAX_PARTIAL_ROOMS = 1_000  # whose servers were notified


class DeviceListRecipients:
    """Fills the outbox. `handle` is for the reader of `DeviceListItems`."""

    def __init__(
        self,
        db: Database,
        log: Log,
        rooms: RoomRegistry,
        user_rooms: UserRooms,
        servers: RoomServers,
        sender: Sender,
    ) -> None:
        self._db = db
        self._log = log
        self._rooms = rooms
        self._user_rooms = user_rooms
        self._servers = servers
        self._sender = sender
        # The servers that were notified when a local user joined a room with partial state.
        self._notified: LruCache[int, frozenset[str]] = LruCache(
            "partial_room_servers", MAX_PARTIAL_ROOMS
        )

    async def handle(self, item: DeviceListItem) -> None:
        """Put what an item makes necessary into the outbox; returns when it is durable."""
        if isinstance(item, OwnListChanged):
            rooms = await self._user_rooms.joined(item.change.user_id)
            await self._queue([(item.change, await self._servers.in_all(rooms))])
            return
        room = await self._rooms.by_number(item.room_nid)
        if room is None:
            return
        if isinstance(item, MembersKnown):
            notified = self._notified.pop(room.room_nid) or frozenset()
            await self._introduce(await self._local_members(room), room, but=notified)
            return
        await self._introduce(item.user_ids, room)
        if room.partial is not None and item.user_ids:
            self._notified.put(room.room_nid, frozenset(room.servers))
        await self._welcome(item, room)

    async def _introduce(
        self, user_ids: Iterable[str], room: Room, *, but: Collection[str] = ()
    ) -> None:
        """Send lists of users to the servers in a room that they did not share a room with."""
        changes = await self._changes_of(user_ids)
        time_slice = TimeSlice(self._rooms.local_server.clock)
        found: list[tuple[DeviceListRow, Collection[str]]] = []
        for change in changes:
            if time_slice.is_over:
                await time_slice.next()
            rooms = await self._user_rooms.joined(change.user_id)
            others = await self._servers.in_all([nid for nid in rooms if nid != room.room_nid])
            if room.membership(change.user_id) == "join":
                found.append((change, set(room.servers).difference(others, but)))
        await self._queue(found)

    async def _welcome(self, item: UsersMet, room: Room) -> None:
        """Send lists of the local users in a room to servers that joined it."""
        known = () if room.partial is None else room.partial.servers
        servers = [server for server in item.servers if server not in known]
        if not servers:
            return
        members = await self._local_members(room)
        changes = await self._changes_of(each for each in members if each not in item.user_ids)
        time_slice = TimeSlice(self._rooms.local_server.clock)
        found: list[tuple[DeviceListRow, Collection[str]]] = []
        for number, change in enumerate(changes, 1):
            shared = self._known_to_share(change.user_id, room.room_nid)
            found.append((change, [server for server in servers if server not in shared]))
            if number % CHECK_EVERY_ITEMS == 0 and time_slice.is_over:
                await time_slice.next()
        await self._queue(found)

    def _known_to_share(self, user_id: str, room_nid: int) -> Collection[str]:
        """The servers in a user's other rooms, as far as they are in memory.

        A server that gets a list again fetches it again. That costs less than to read the rooms of
        a thousand users.
        """
        rooms = self._user_rooms.loaded(user_id) or {}
        joined = [
            nid for nid, place in rooms.items() if place.membership == "join" and nid != room_nid
        ]
        return self._servers.known(joined)[0]

    async def _local_members(self, room: Room) -> list[str]:
        """Local users who are joined to a room, up to `MAX_USERS`."""
        local = self._rooms.local_server
        wanted = min(room.joined_servers[local.server_name], MAX_USERS)
        time_slice = TimeSlice(local.clock)
        found: list[str] = []
        for number, user_id in enumerate(list(room.joined_members()), 1):
            if len(found) >= wanted:
                break
            if local.is_local(user_id):
                found.append(user_id)
            if number % CHECK_EVERY_ITEMS == 0 and time_slice.is_over:
                await time_slice.next()
        return found

    async def _changes_of(self, user_ids: Iterable[str]) -> list[DeviceListRow]:
        """The last changes of users' lists; there is nothing to send of users without any."""
        wanted = list(user_ids)
        return await self._db.run(device_lists_of, wanted) if wanted else []

    async def _queue(self, changes: Sequence[tuple[DeviceListRow, Collection[str]]]) -> None:
        rows: list[Row] = []
        concerned: dict[str, None] = {}
        for change, servers in changes:
            destinations = await self._destinations(servers)
            if not destinations:
                continue
            concerned |= dict.fromkeys(destinations)
            rows.append(
                QUEUE_DEVICE_LIST.row(
                    " ".join(destinations),
                    change.position,
                    change.user_id,
                    change.stream_id,
                    change.previous_id,
                    change.device_id,
                )
            )
            failing = [each for each in destinations if self._sender.is_failing(each)]
            if failing:
                rows.append(
                    REPLACE_EARLIER_CHANGES.row(" ".join(failing), change.user_id, change.position)
                )
        if rows:
            entry = DeviceListsQueued(self._log.next_position(), tuple(concerned))
            await self._log.append(entry, rows)

    async def _destinations(self, servers: Collection[str]) -> list[str]:
        clock = self._rooms.local_server.clock
        permitted = (each if self._sender.is_destination(each) else None for each in servers)
        return await build_present_cooperatively(clock, permitted)

"""All connections of sliding sync: a bounded number of bytes in memory, and a few of each device.

They are stored so that clients can go on after a restart: those that have changed are written
together, some seconds after a response. What is not written yet when the process is killed is lost;
these clients begin again. Connections of callers without a device are in memory only.

Spec: MSC4186
"""

from collections.abc import Sequence
from itertools import islice
from typing import Any

from homeserver.accounts.sessions.devices import DevicesRemoved
from homeserver.concurrency.clock import Clock, now_ms, wall_seconds
from homeserver.concurrency.cooperative import TimeSlice
from homeserver.concurrency.lru_cache import LruCache
from homeserver.concurrency.periodic import PeriodicTask
from homeserver.protocol.sliding_sync.request import UnknownPos
from homeserver.storage.accounts.sliding_sync_connections import (
    ConnectionRow,
    delete_connections,
    delete_orphaned_connections,
    find_connection,
    save_connections,
)
from homeserver.storage.database.database import Database
from homeserver.streams.positions import SLOT_BITS, position_at
from homeserver.sync.sliding.connection import SlidingConnection
from homeserver.sync.sliding.stored_connections import ConnectionDecoder, encode_connection
from homeserver.sync.sync_request import SyncRequest

MAX_BYTES = 256 << 20  # of all connections in memory
MAX_OF_DEVICE = 10  # connections of one device
SAVE_SECONDS = 10.0  # after which what has changed is stored
MAX_EVICTED_BYTES = 32 << 20  # of those that are not in memory any more and not stored yet
MAX_STORED_BYTES = 262_144  # of one connection; a larger one does not outlive a restart
MAX_SAVED = 100  # connections in one statement

DeviceKey = tuple[str, str]  # user id and device id
ConnectionKey = tuple[str, str, str]  # and `conn_id`


class SlidingConnections:
    """The connections of devices. Subscribe `apply` to the log; `start` and `stop` the saving."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._decoder = ConnectionDecoder()
        self._connections: LruCache[ConnectionKey, SlidingConnection] = LruCache(
            "sliding_sync_connections",
            MAX_BYTES,
            size_of=lambda _, connection: connection.size,
            is_pinned=lambda connection: connection.is_in_use,
            on_evict=self._evict,
        )
        # While the database is unavailable, the oldest are lost, and their clients begin again.
        self._evicted: LruCache[ConnectionKey, SlidingConnection] = LruCache(
            "evicted_sliding_sync_connections",
            MAX_EVICTED_BYTES,
            size_of=lambda _, connection: connection.size,
            on_evict=lambda key, _: self._unsaved.pop(key, None),
        )
        # The `conn_id`s of each device, the least recently used one first.
        self._of_devices: dict[DeviceKey, dict[str, None]] = {}
        self._unsaved: dict[ConnectionKey, None] = {}  # in memory or evicted
        self._begun: set[DeviceKey] = set()  # with a new connection
        self._removed: set[DeviceKey] = set()
        self._saving = PeriodicTask(
            clock, SAVE_SECONDS, self.save, name="the saving of sliding sync connections"
        )

    def __len__(self) -> int:
        return len(self._connections)

    async def start(self) -> None:
        """Begin to save what changes."""
        await self._db.run(delete_orphaned_connections)
        self._saving.start()

    async def stop(self) -> None:
        """Save what has changed, and stop."""
        await self._saving.stop()
        await self.save()

    async def open(self, request: SyncRequest, conn_id: str, pos: str | None) -> SlidingConnection:
        """The connection of a request, in the state of its `pos`; a new one without `pos`.

        Raises `UnknownPos` if there is no such state.
        """
        key = (*request.device, conn_id)
        if pos is None:
            # A number that no state of an earlier connection with this name had.
            number = position_at(wall_seconds(self._clock)) >> SLOT_BITS
            self._end(key)
            connection = self._connections.put(key, SlidingConnection(number))
            if request.caller.device_id is not None:
                self._begun.add(request.device)
        else:
            found = self._connections.get(key) or await self._find(request, key)
            if found is None or not found.acknowledge(pos):
                raise UnknownPos("The connection is in another position; begin again without one")
            connection = found
        self._use(key)
        return connection

    def changed(self, request: SyncRequest, conn_id: str, *, is_new: bool) -> None:
        """Measure a connection again after a response, and save it soon if that `is_new`."""
        key = (*request.device, conn_id)
        connection = self._connections.peek(key)
        if connection is not None:
            self._connections.measure(key)
            self._connections.shrink()
            if is_new and request.caller.device_id is not None:
                self._unsaved[key] = None

    def has_news(self, request: SyncRequest, conn_id: str) -> None:
        """Save a connection soon after a response with which it does not become larger."""
        key = (*request.device, conn_id)
        if request.caller.device_id is not None and key in self._connections:
            self._unsaved[key] = None

    def apply(self, entries: Sequence[Any]) -> None:
        """Forget the connections of devices that were removed (called by the log)."""
        for entry in entries:
            if isinstance(entry, DevicesRemoved):
                for device_id in entry.device_ids:
                    self._remove((entry.user_id, device_id))

    async def save(self) -> None:
        """Store the connections that have changed, and delete those that are too many."""
        # What changes meanwhile is for the next time: busy clients are not saved all the time.
        unsaved = iter(list(self._unsaved))
        while keys := list(islice(unsaved, MAX_SAVED)):
            await self._save_some(keys)
        await self._delete(self._begun, MAX_OF_DEVICE)
        await self._delete(self._removed, 0)

    async def _delete(self, devices: set[DeviceKey], kept: int) -> None:
        """Delete all but some connections of each device, and empty the set."""
        taken = list(devices)
        devices.clear()
        if taken:
            try:
                await self._db.run(delete_connections, taken, kept)
            except BaseException:
                devices.update(taken)
                raise

    async def _save_some(self, keys: Sequence[ConnectionKey]) -> None:
        rows: list[ConnectionRow] = []
        numbers: dict[ConnectionKey, int] = {}
        time_slice = TimeSlice(self._clock)
        for key in keys:
            connection = self._loaded(key)
            if connection is None:
                continue  # it has ended meanwhile
            state = encode_connection(connection)
            if len(state) <= MAX_STORED_BYTES:
                rows.append(ConnectionRow(*key, state, now_ms(self._clock)))
            numbers[key] = connection.number
            if time_slice.is_over:
                await time_slice.next()
        await self._db.run(save_connections, rows)
        for key, number in numbers.items():
            unsaved = self._loaded(key)
            if unsaved is not None and unsaved.number == number:
                self._unsaved.pop(key, None)
                self._evicted.pop(key)

    async def _find(self, request: SyncRequest, key: ConnectionKey) -> SlidingConnection | None:
        found = self._evicted.pop(key)
        if found is None and request.caller.device_id is not None:
            stored = await self._db.run(find_connection, *key)
            found = None if stored is None else self._decoder.decode(stored)
        return None if found is None else self._connections.setdefault(key, found)

    def _loaded(self, key: ConnectionKey) -> SlidingConnection | None:
        return self._connections.peek(key) or self._evicted.peek(key)

    def _use(self, key: ConnectionKey) -> None:
        """Note a use, and end the device's least recently used connection beyond the bound."""
        own = self._of_devices.setdefault(key[:2], {})
        own.pop(key[2], None)
        own[key[2]] = None
        if len(own) > MAX_OF_DEVICE:
            oldest = next(iter(own))
            del own[oldest]
            self._end((key[0], key[1], oldest))

    def _end(self, key: ConnectionKey) -> None:
        """End a connection, and the request that runs on it."""
        connection = self._connections.pop(key)
        self._evicted.pop(key)
        self._unsaved.pop(key, None)
        if connection is not None:
            connection.end_turn()

    def _remove(self, device: DeviceKey) -> None:
        self._removed.add(device)
        for conn_id in self._of_devices.pop(device, ()):
            self._end((*device, conn_id))

    def _evict(self, key: ConnectionKey, connection: SlidingConnection) -> None:
        if key in self._unsaved:
            self._evicted.put(key, connection)
        own = self._of_devices.get(key[:2])
        if own is not None:
            own.pop(key[2], None)
            if not own:
                del self._of_devices[key[:2]]

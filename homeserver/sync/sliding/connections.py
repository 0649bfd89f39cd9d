"""All connections of sliding sync, in memory: a bounded number of bytes, and a few of each device.

Spec: MSC4186
"""

from collections.abc import Sequence
from typing import Any

from homeserver.accounts.sessions.devices import DevicesRemoved
from homeserver.concurrency.clock import Clock, wall_seconds
from homeserver.concurrency.lru_cache import LruCache
from homeserver.protocol.sliding_sync.request import UnknownPos
from homeserver.streams.positions import SLOT_BITS, position_at
from homeserver.sync.sliding.connection import SlidingConnection
from homeserver.sync.sync_request import SyncRequest

MAX_BYTES = 256 << 20  # of all connections
MAX_OF_DEVICE = 10  # connections of one device

DeviceKey = tuple[str, str]  # user id and device id
ConnectionKey = tuple[str, str, str]  # and `conn_id`


class SlidingConnections:
    """The connections of devices. Subscribe `apply` to the log."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._connections: LruCache[ConnectionKey, SlidingConnection] = LruCache(
            "sliding_sync_connections",
            MAX_BYTES,
            size_of=lambda _, connection: connection.size,
            is_pinned=lambda connection: connection.is_in_use,
            on_evict=lambda key, _: self._forget(key),
        )
        self._of_devices: dict[
            DeviceKey, dict[str, None]
        ] = {}  # conn_ids, least recently used first

    def __len__(self) -> int:
        return len(self._connections)

    async def open(self, request: SyncRequest, conn_id: str, pos: str | None) -> SlidingConnection:
        """The connection of a request, in the state of its `pos`; a new one without `pos`.

        Raises `UnknownPos` if there is no such state.
        """
        key = (*request.device, conn_id)
        if pos is None:
            # A number that no state of an earlier connection with this name had.
            number = position_at(wall_seconds(self._clock)) >> SLOT_BITS
            connection = SlidingConnection(number)
            self._connections.put(key, connection)
            self._use(key)
            return connection
        found = self._connections.get(key)
        if found is None or not found.acknowledge(pos):
            raise UnknownPos("The connection is not known in this position; begin again without")
        self._use(key)
        return found

    def changed(self, request: SyncRequest, conn_id: str) -> None:
        """Measure a connection again, after a response."""
        self._connections.measure((*request.device, conn_id))
        self._connections.shrink()

    def apply(self, entries: Sequence[Any]) -> None:
        """Forget the connections of devices that were removed."""
        for entry in entries:
            if isinstance(entry, DevicesRemoved):
                for device_id in entry.device_ids:
                    device = entry.user_id, device_id
                    for conn_id in self._of_devices.pop(device, ()):
                        self._connections.pop((*device, conn_id))

    def _use(self, key: ConnectionKey) -> None:
        """Note a use, and end the device's least recently used connection beyond the bound."""
        own = self._of_devices.setdefault(key[:2], {})
        own.pop(key[2], None)
        own[key[2]] = None
        if len(own) > MAX_OF_DEVICE:
            oldest = next(iter(own))
            del own[oldest]
            self._connections.pop((key[0], key[1], oldest))

    def _forget(self, key: ConnectionKey) -> None:
        own = self._of_devices.get(key[:2])
        if own is not None:
            own.pop(key[2], None)
            if not own:
                del self._of_devices[key[:2]]

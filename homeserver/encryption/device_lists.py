"""Changes of device lists: recording them, and finding those that a user has not heard of.

A user's device list changes with their devices, the keys of these, and their cross-signing keys.
Each change is a log entry and a row that are written together with what changed, so no change is
lost in a crash. Everybody who shares a room with the user has to know. Other servers receive the
changes as a chain of stream ids, in which they notice a gap.

Spec: https://spec.matrix.org/v1.19/server-server-api/#device-management
"""

from collections.abc import Sequence

import msgspec

from homeserver.accounts.sessions.devices import DeviceChange, DevicesRemoved
from homeserver.concurrency.lru_cache import LruCache
from homeserver.encryption.changes import DeviceListChanged
from homeserver.protocol.encryption.key_signatures import key_name
from homeserver.rooms.room.user_rooms import MemberRooms, UserRooms
from homeserver.storage.database.batch import Row
from homeserver.storage.database.database import Database
from homeserver.storage.encryption.cross_signing import (
    DELETE_SIGNATURES_BY_KEY,
    DELETE_SIGNATURES_OF_KEY,
)
from homeserver.storage.encryption.dehydrated_devices import DELETE_DEHYDRATED_DEVICE
from homeserver.storage.encryption.device_keys import DELETE_DEVICE_KEYS
from homeserver.storage.encryption.device_lists import RECORD_DEVICE_LIST_CHANGE, device_list_of
from homeserver.storage.encryption.one_time_keys import (
    DELETE_FALLBACK_KEYS,
    DELETE_ONE_TIME_KEYS,
)
from homeserver.storage.encryption.to_device import (
    DELETE_MESSAGES_OF_DEVICE,
    DELETE_TRANSACTIONS_OF_DEVICE,
)
from homeserver.streams.log import Log
from homeserver.streams.positions import STEP

MAX_KNOWN = 10_000  # users whose last stream id is in memory
DELETED_WITH_DEVICE = (
    DELETE_DEHYDRATED_DEVICE,
    DELETE_DEVICE_KEYS,
    DELETE_ONE_TIME_KEYS,
    DELETE_FALLBACK_KEYS,
    DELETE_SIGNATURES_OF_KEY,
    DELETE_MESSAGES_OF_DEVICE,
    DELETE_TRANSACTIONS_OF_DEVICE,
)


class _Known(msgspec.Struct):
    rooms: MemberRooms
    last_stream_id: int | None


class DeviceLists:
    """Records the changes of device lists. It is a companion of `Devices`."""

    def __init__(self, db: Database, log: Log, user_rooms: UserRooms) -> None:
        self._db = db
        self._log = log
        self._user_rooms = user_rooms
        self._known: LruCache[str, _Known] = LruCache("device_lists", MAX_KNOWN)

    async def prepare(self, user_id: str) -> None:
        """Load what is needed to record a change of a user; to be awaited right before it."""
        rooms = await self._user_rooms.of(user_id)
        known = self._known.get(user_id)
        if known is None:
            row = await self._db.run(device_list_of, user_id)
            last = None if row is None else row.stream_id
            known = self._known.setdefault(user_id, _Known(rooms, last))
        known.rooms = rooms

    def record(self, user_id: str, device_id: str | None = None, rows: Sequence[Row] = ()) -> None:
        """Append the entry for a change, with its row and others.

        `prepare` was awaited right before. What changed is appended in the same iteration of the
        reactor: then all is written together. `device_id` is `None` for cross-signing keys, and for
        a whole list.
        """
        known = self._known.get(user_id)
        assert known is not None, "prepare() comes before record()"
        position = self._log.next_position()
        # The microsecond of the position: unique for a user, and small enough for canonical JSON.
        stream_id, previous_id = position // STEP, known.last_stream_id
        known.last_stream_id = stream_id
        rooms = tuple(nid for nid, place in known.rooms.items() if place.membership == "join")
        row = RECORD_DEVICE_LIST_CHANGE.row(user_id, position, stream_id, previous_id, device_id)
        entry = DeviceListChanged(position, user_id, rooms, device_id, stream_id, previous_id)
        self._log.append(entry, [*rows, row]).addErrback(lambda _: None)

    def follow(self, change: DeviceChange) -> None:
        """Record a change of a user's devices: all data of a removed one goes with it."""
        if not isinstance(change, DevicesRemoved):
            self.record(change.user_id, change.device_id)
            return
        for device_id in change.device_ids:
            name = change.user_id, device_id
            rows = [each.row(*name) for each in DELETED_WITH_DEVICE]
            rows.append(DELETE_SIGNATURES_BY_KEY.row(change.user_id, key_name(device_id)))
            self.record(*name, rows)

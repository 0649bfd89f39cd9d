"""What is left of the one-time and fallback keys of each device, for its `/sync` responses.

Spec: https://spec.matrix.org/v1.19/client-server-api/#e2e-extensions-to-sync
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from homeserver.accounts.sessions.devices import DevicesRemoved
from homeserver.concurrency.lru_cache import LruCache
from homeserver.encryption.changes import ClaimableKeysChanged
from homeserver.storage.database.database import Database
from homeserver.storage.encryption.one_time_keys import key_counts
from homeserver.streams.log_cache import LogCache

MAX_DEVICES = 50_000  # devices in memory
SIGNED_CURVE25519 = "signed_curve25519"
_encode = msgspec.json.Encoder().encode


class KeyCounts(msgspec.Struct, frozen=True):
    """The keys of a device: the number of one-time keys by algorithm, and unused fallback keys.

    `changed_at` is the position of the last change since the start, or 0. `members` is the JSON of
    both, as members that follow others in a `/sync` response.
    """

    one_time: Mapping[str, int]
    unused_fallback: Sequence[str]
    changed_at: int
    members: bytes


def build_key_counts(
    one_time: Mapping[str, int], unused_fallback: Sequence[str], changed_at: int
) -> KeyCounts:
    """The value; it has a count of the usual algorithm, even if no key is left."""
    counted = {SIGNED_CURVE25519: 0, **one_time}
    members = b',"device_one_time_keys_count":%s,"device_unused_fallback_key_types":%s' % (
        _encode(counted),
        _encode(unused_fallback),
    )
    return KeyCounts(counted, unused_fallback, changed_at, members)


NO_KEYS = build_key_counts({}, (), 0)


class DeviceKeyCounts:
    """The counts of active devices. `apply` is to be subscribed to the log."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._cache: LogCache[tuple[str, str], KeyCounts, None] = LogCache(
            LruCache("key_counts", MAX_DEVICES), self._load, lambda *_: None
        )
        self._changed: LruCache[tuple[str, str], int] = LruCache("key_changes", MAX_DEVICES)
        self.find = self._cache.find
        self.of = self._cache.get

    def apply(self, entries: Sequence[Any]) -> None:
        """Forget the counts that changed (called by the log)."""
        for entry in entries:
            if isinstance(entry, ClaimableKeysChanged | DevicesRemoved):
                for device_id in entry.device_ids:
                    device = entry.user_id, device_id
                    self._changed.put(device, entry.position)
                    self._cache.forget(device)

    async def _load(self, device: tuple[str, str]) -> KeyCounts:
        rows = await self._db.run(key_counts, *device)
        one_time = {row.algorithm: row.number for row in rows if not row.is_fallback}
        unused = [row.algorithm for row in rows if row.is_fallback and not row.used]
        if not rows:
            return (
                NO_KEYS
                if device not in self._changed
                else build_key_counts({}, (), self._at(device))
            )
        return build_key_counts(one_time, unused, self._at(device))

    def _at(self, device: tuple[str, str]) -> int:
        return self._changed.peek(device) or 0

"""The keys of other servers that are known: in memory for those in use, in the database for all.

Spec: https://spec.matrix.org/v1.19/server-server-api/#retrieving-server-keys
"""

from collections.abc import Iterable

from homeserver.concurrency.lru_cache import LruCache
from homeserver.protocol.signing.canonical_json import encode_canonical_loose
from homeserver.protocol.signing.server_keys import ServerKeys, VerifyKey
from homeserver.storage.database.database import Database
from homeserver.storage.federation import server_keys as storage
from homeserver.storage.federation.server_keys import StoredKey, StoredResponse

MAX_SERVERS = 10_000  # in memory
MAX_KEYS_OF_SERVER = 200  # a server that makes ever new ones cannot fill the disk


class KeyStore:
    """Keys by server; a server that nobody knows has none."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._known: LruCache[str, dict[str, StoredKey]] = LruCache("server_keys", MAX_SERVERS)

    def in_memory(self, server_name: str, key_id: str) -> VerifyKey | None:
        """A key, if it is at hand."""
        key = (self._known.get(server_name) or {}).get(key_id)
        return None if key is None else _plain(key)

    async def load(self, server_names: Iterable[str]) -> None:
        """Have the keys of these servers at hand, unless they are."""
        missing = sorted({name for name in server_names if self._known.get(name) is None})
        if not missing:
            return
        found: dict[str, dict[str, StoredKey]] = {name: {} for name in missing}
        for key in await self._db.run(storage.load_keys, missing):
            found[key.server_name][key.key_id] = key
        for name, keys in found.items():
            # What was fetched meanwhile is newer than what was read.
            self._known.put(name, keys | (self._known.get(name) or {}))

    async def add(self, found: ServerKeys, now_ms: int, *, from_origin: bool) -> None:
        """Keep what a server publishes, `from_origin` or passed on by others."""
        await self.load([found.server_name])
        known = self._known.get(found.server_name) or {}
        is_full = len(known) + len(found.keys) > MAX_KEYS_OF_SERVER
        keys = [
            StoredKey(
                found.server_name,
                key.key_id,
                key.verify_key,
                key.valid_until_ts,
                key.is_old,
                found.valid_until_ts,
                now_ms,
            )
            for key in found.keys
            if key.key_id in known or not is_full
        ]
        response = encode_canonical_loose(dict(found.response))
        await self._db.run(storage.save_keys, keys, response, from_origin=from_origin)
        known = self._known.get(found.server_name) or {}
        newer = {
            key.key_id: key
            for key in keys
            if from_origin or _is_no_older(key, known.get(key.key_id))
        }
        self._known.put(found.server_name, known | newer)

    async def responses(self, server_name: str) -> list[StoredResponse]:
        """The signed answers about a server's keys, the newest first."""
        return await self._db.run(storage.load_responses, server_name)


def _is_no_older(new: StoredKey, known: StoredKey | None) -> bool:
    """The rule by which the database replaces a key, too."""
    return known is None or new.response_valid_until_ts >= known.response_valid_until_ts


def _plain(key: StoredKey) -> VerifyKey:
    return VerifyKey(key.key_id, key.verify_key, key.valid_until_ts, key.is_old)

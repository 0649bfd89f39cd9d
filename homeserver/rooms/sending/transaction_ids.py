"""Transaction ids: a request that is repeated with the same id makes only one event.

A request is a repetition if device, path and transaction id are the same: an id that was used to
send a message may be used again for a redaction, or in another room. `ClientTransaction.path`
describes the path.

The latest `MAX_CACHED_TRANSACTIONS` transactions of a device are kept in memory; they are read from
the database once, when the device sends for the first time after a start, so that a request that is
repeated across a restart finds its event too.

Spec: https://spec.matrix.org/v1.19/client-server-api/#transaction-identifiers
"""

from collections.abc import Awaitable, Callable
from hashlib import blake2b

from homeserver.concurrency.keyed_locks import KeyedLocks
from homeserver.concurrency.lru_cache import LruCache
from homeserver.rooms.events.event_draft import ClientTransaction, sending_path
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.storage.database.database import Database
from homeserver.storage.rooms.events import transactions_of_device
from homeserver.storage.rooms.names import Names

MAX_CACHED_TRANSACTIONS = 200  # transactions of a device
MAX_DEVICES = 5_000
KEY_BYTES = 16

# The event id by the digest of path and transaction id: clients choose these as long as they like.
# Thousands of devices have hundreds: a dictionary takes half of the memory of a cache.
_Seen = dict[bytes, str]


class Transactions:
    """The recent transactions of each device."""

    def __init__(self, db: Database, names: Names) -> None:
        self._db = db
        self._names = names
        self._devices: LruCache[tuple[str, str], _Seen] = LruCache(
            "client_transactions", MAX_DEVICES
        )
        self._sending: KeyedLocks[tuple[str, str, bytes]] = KeyedLocks()

    async def once(
        self, transaction: ClientTransaction, make: Callable[[], Awaitable[StoredEvent]]
    ) -> str:
        """The id of the event that this transaction made, or now makes by `make`.

        While the first request is in progress, a repeated one waits for it; if the first fails, the
        repeated one makes its own attempt.
        """
        user_id, device_id = transaction.user_id, transaction.device_id
        seen = await self._seen(user_id, device_id)
        key = transaction_key(transaction.path, transaction.txn_id)
        async with self._sending.hold((user_id, device_id, key)):
            event_id = seen.get(key)
            if event_id is None:
                event_id = seen[key] = (await make()).event.event_id
                if len(seen) > MAX_CACHED_TRANSACTIONS:
                    del seen[next(iter(seen))]
            return event_id

    async def find(self, transaction: ClientTransaction) -> str | None:
        """The id of the event that this transaction made."""
        seen = await self._seen(transaction.user_id, transaction.device_id)
        return seen.get(transaction_key(transaction.path, transaction.txn_id))

    async def _seen(self, user_id: str, device_id: str) -> _Seen:
        device = (user_id, device_id)
        seen = self._devices.get(device)
        if seen is None:
            seen = self._devices.setdefault(device, await self._load(user_id, device_id))
        return seen

    async def _load(self, user_id: str, device_id: str) -> _Seen:
        member = await self._names.nid(user_id)
        rows = await self._db.run(
            transactions_of_device, member, device_id, MAX_CACHED_TRANSACTIONS
        )
        names = await self._names.names({nid for row in rows for nid in row[:2]})
        loaded: _Seen = {}
        for room, type_nid, path, txn_id, event_id in reversed(rows):
            path = path or sending_path(names[room], names[type_nid])
            loaded[transaction_key(path, txn_id)] = event_id
        return loaded


def transaction_key(path: str, txn_id: str) -> bytes:
    """A digest of a path and a transaction id."""
    text = f"{len(path)} {path}{txn_id}"
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=KEY_BYTES).digest()

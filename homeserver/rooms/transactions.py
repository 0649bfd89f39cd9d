"""Transactions: a request that is repeated with the same transaction id makes one event only.

The ids of a device are kept in memory, the latest `KEPT` of them; they are read from the database
once, when the device sends for the first time after a start, so that a request repeated across a
restart finds its event too.

Spec: https://spec.matrix.org/v1.19/client-server-api/#transaction-identifiers
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable

from twisted.internet.defer import Deferred

from homeserver.rooms.drafts import Transaction
from homeserver.rooms.event_store import EventStore
from homeserver.rooms.room import Room
from homeserver.rooms.stored_event import StoredEvent
from homeserver.storage.database import Database
from homeserver.storage.events import transactions_of_device
from homeserver.storage.names import Names
from homeserver.streams.waiting import joined

KEPT = 200  # transactions of a device
MAX_DEVICES = 5_000

_Key = tuple[int, str, str]  # room, event type, transaction id
_Seen = OrderedDict[_Key, "int | Deferred[None]"]  # the event, or the request at work


class Transactions:
    """What each device has sent lately."""

    def __init__(self, db: Database, names: Names, events: EventStore) -> None:
        self._db = db
        self._names = names
        self._events = events
        self._devices: OrderedDict[tuple[str, str], _Seen] = OrderedDict()

    async def once(
        self,
        room: Room,
        event_type: str,
        transaction: Transaction,
        make: Callable[[], Awaitable[StoredEvent]],
    ) -> StoredEvent:
        """The event that this transaction made, or now makes by `make`.

        While the first request is at work, a repeated one waits for it; if the first fails, the
        repeated one makes its own attempt.
        """
        seen = await self._seen(transaction.user_id, transaction.device_id)
        key = (room.number, event_type, transaction.txn_id)
        while (earlier := seen.get(key)) is not None:
            if isinstance(earlier, Deferred):
                await joined(earlier)
            else:
                return (await self._events.load(room.version, [earlier]))[earlier]
        running: Deferred[None] = Deferred()
        seen[key] = running
        try:
            stored = await make()
            seen[key] = stored.number
            if len(seen) > KEPT:
                _forget_oldest(seen)
        except BaseException:
            del seen[key]
            raise
        finally:
            running.callback(None)
        return stored

    async def _seen(self, user_id: str, device_id: str) -> _Seen:
        device = (user_id, device_id)
        seen = self._devices.get(device)
        if seen is None:
            member = await self._names.nid(user_id)
            rows = await self._db.run(transactions_of_device, member, device_id, KEPT)
            types = await self._names.names({type_nid for _, type_nid, _, _ in rows})
            loaded: _Seen = OrderedDict()
            for room, type_nid, txn_id, event in reversed(rows):
                loaded[(room, types[type_nid], txn_id)] = event
            seen = self._devices.setdefault(device, loaded)
            while len(self._devices) > MAX_DEVICES:
                self._devices.popitem(last=False)
        else:
            self._devices.move_to_end(device)
        return seen


def _forget_oldest(seen: _Seen) -> None:
    for key, value in seen.items():
        if not isinstance(value, Deferred):
            del seen[key]
            return

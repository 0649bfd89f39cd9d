"""Thread subscriptions: the threads of which a user wants to be notified.

A subscription lies in the shard of its user. Each user changes one at a time, so that what was
decided is what is stored.

Spec: MSC4306, and MSC4308 for the pages of changes
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from homeserver.concurrency.keyed_locks import KeyedLocks
from homeserver.concurrency.not_in_memory import NotInMemory
from homeserver.protocol.errors import NotFound, UserLimitExceeded
from homeserver.protocol.proposals.thread_subscriptions import (
    NotInThread,
    ThreadSubscription,
    is_change,
)
from homeserver.push.thread_subscription_changed import ThreadSubscriptionChanged
from homeserver.push.threads import Threads
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.history.room_reader import RoomReader
from homeserver.rooms.room.room import Room
from homeserver.storage.database.database import Database
from homeserver.storage.push.thread_subscriptions import (
    SET_THREAD_SUBSCRIPTION,
    SubscriptionRow,
    changed_subscriptions,
    count_subscriptions,
    find_subscription,
)
from homeserver.storage.rooms.names import Names
from homeserver.streams.log import Log
from homeserver.streams.recent_changes import RecentChanges

MAX_OF_USER = 50_000  # threads to which a user is, or was, subscribed
MAX_PAGE = 100
MAX_CHANGED = 100_000  # users whose last change is in memory


class ChangedSubscription(msgspec.Struct, frozen=True):
    """The last change of a subscription, with the id of its room."""

    room_id: str
    row: SubscriptionRow


class SubscriptionPage(msgspec.Struct, frozen=True):
    """Changed subscriptions, the latest first. `end` is the position to continue below, if any."""

    changes: Sequence[ChangedSubscription]
    end: int | None = None


EMPTY_PAGE = SubscriptionPage(())


class ThreadSubscriptions:
    """Reads and changes subscriptions of local users. `apply` is to be subscribed to the log."""

    def __init__(
        self, db: Database, log: Log, names: Names, reader: RoomReader, threads: Threads
    ) -> None:
        self._db = db
        self._log = log
        self._names = names
        self._reader = reader
        self._threads = threads
        self._locks: KeyedLocks[str] = KeyedLocks()
        self._changed: RecentChanges[str, None] = RecentChanges(MAX_CHANGED, log.position)

    async def get(self, user_id: str, room_id: str, root: str) -> ThreadSubscription:
        """A user's subscription to a thread. Raises `NotFound`."""
        room = await self._room_of(user_id, room_id, root)
        found = await self._db.run(find_subscription, room.room_nid, root, user_id)
        if found is None or not found.is_subscribed:
            raise NotFound("You are not subscribed to this thread")
        return found

    async def subscribe(
        self, user_id: str, room_id: str, root: str, cause_id: str | None = None
    ) -> None:
        """Subscribe a user to a thread; automatically, if an event is given as the cause.

        Raises `NotFound` for a thread that the user cannot see, `NotInThread`,
        `ConflictingUnsubscription`, and `UserLimitExceeded`.
        """
        room = await self._room_of(user_id, room_id, root)
        cause = None if cause_id is None else await self._cause(user_id, room, root, cause_id)
        async with self._locks.hold(user_id):
            known = await self._db.run(find_subscription, room.room_nid, root, user_id)
            if not is_change(known, cause):
                return
            if known is None:
                await self._check_number(user_id)
            await self._append(room, root, user_id, True, cause is not None)

    async def unsubscribe(self, user_id: str, room_id: str, root: str) -> None:
        """End a user's subscription to a thread, if there is one. Raises `NotFound`."""
        room = await self._room_of(user_id, room_id, root)
        async with self._locks.hold(user_id):
            known = await self._db.run(find_subscription, room.room_nid, root, user_id)
            if known is not None and known.is_subscribed:
                await self._append(room, root, user_id, False, known.is_automatic)

    def may_have_changed(self, user_id: str, after: int) -> bool:
        """False if nothing of a user changed above a position; needs no waiting."""
        return self._changed.may_have(user_id, after)

    async def changes(
        self, user_id: str, *, after: int = 0, upto: int, limit: int
    ) -> SubscriptionPage:
        """The latest changes of a user above one position up to another one."""
        if not self.may_have_changed(user_id, after):
            return EMPTY_PAGE
        size = min(limit, MAX_PAGE)
        rows = await self._db.run(changed_subscriptions, user_id, after, upto, size + 1)
        page = rows[:size]
        room_ids = await self._names.names({row.room for row in page})
        changes = [ChangedSubscription(room_ids[row.room], row) for row in page]
        return SubscriptionPage(changes, page[-1].position - 1 if len(rows) > size else None)

    def apply(self, entries: Sequence[Any]) -> None:
        """Apply log entries (called by the log)."""
        for entry in entries:
            if isinstance(entry, ThreadSubscriptionChanged):
                self._changed.put(entry.user_id, entry.position, None)

    async def _room_of(self, user_id: str, room_id: str, root: str) -> Room:
        """The room of a thread that the user may see. Raises `NotFound`.

        A thread may have no event but its root yet: clients subscribe while they send the first
        one.
        """
        room, seen = await self._reader.event_in_room(user_id, room_id, root)
        if await self._thread_of(room, seen.stored) is not None:
            raise NotFound("No thread begins with this event: it lies in one itself")
        return room

    async def _cause(self, user_id: str, room: Room, root: str, event_id: str) -> int:
        """The position of the cause of an automatic subscription. Raises `NotInThread`."""
        try:
            stored = (await self._reader.event(user_id, room.room_id, event_id)).stored
        except NotFound:
            raise NotInThread("The event is unknown, or you may not see it") from None
        if await self._thread_of(room, stored) != root:
            raise NotInThread("The event is not in this thread")
        return stored.log_position

    async def _thread_of(self, room: Room, stored: StoredEvent) -> str | None:
        while True:
            try:
                return self._threads.of(room, stored)
            except NotInMemory as missing:
                await missing.load()

    async def _check_number(self, user_id: str) -> None:
        if await self._db.run(count_subscriptions, user_id, MAX_OF_USER) >= MAX_OF_USER:
            raise UserLimitExceeded(f"A user has at most {MAX_OF_USER} subscriptions to threads")

    async def _append(
        self, room: Room, root: str, user_id: str, is_subscribed: bool, is_automatic: bool
    ) -> None:
        self._log.check_open()
        position = self._log.next_position()
        row = SET_THREAD_SUBSCRIPTION.row(
            room.room_nid, root, user_id, is_subscribed, is_automatic, position
        )
        change = ThreadSubscriptionChanged(
            position, room.room_nid, root, user_id, is_subscribed, is_automatic
        )
        await self._log.append(change, [row])

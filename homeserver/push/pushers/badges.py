"""Badges: the number of unread messages of a user in all their rooms, as phones show it.

The counts of the rooms are cached for users who were pushed to lately. Events and receipts mark a
room, whose count is taken again when the badge is needed. A badge that is not in memory is built
from the rooms that may have unread events, the newest first.

Spec: https://spec.matrix.org/v1.19/push-gateway-api/#post_matrixpushv1notify
"""

from collections.abc import Sequence
from typing import Any

from homeserver.accounts.user_data.account_data import AccountDataChanged, AccountDataErased
from homeserver.concurrency.keyed_locks import KeyedLocks
from homeserver.concurrency.lru_cache import LruCache
from homeserver.protocol.event_types import IGNORED_USER_LIST, PUSH_RULES
from homeserver.push.thread_subscription_changed import ThreadSubscriptionChanged
from homeserver.push.unread_counts import UnreadCounts
from homeserver.rooms.room.changes import EventAppended, EventsPurged, StateChanged
from homeserver.rooms.room.registry import RoomRegistry
from homeserver.rooms.room.room_receipts import ReceiptsChanged
from homeserver.rooms.room.user_rooms import UserRooms
from homeserver.storage.database.database import Database
from homeserver.storage.push.unread_rooms import rooms_with_unread

MAX_USERS = 50_000
MAX_ROOMS = 100  # with unread events that a badge counts; there may be more


class _Badge:
    """One user's counts by room nid, without those that are zero; `changed` are to be counted."""

    __slots__ = ("changed", "counts", "total")

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}
        self.changed: set[int] = set()
        self.total = 0

    def set(self, room_nid: int, count: int) -> None:
        self.total += count - self.counts.pop(room_nid, 0)
        if count:
            self.counts[room_nid] = count


class Badges:
    """Counts unread messages of users. `apply` is to be subscribed to the log, after the rooms."""

    def __init__(
        self,
        db: Database,
        rooms: RoomRegistry,
        user_rooms: UserRooms,
        unread_counts: UnreadCounts,
    ) -> None:
        self._db = db
        self._rooms = rooms
        self._user_rooms = user_rooms
        self._unread_counts = unread_counts
        self._locks: KeyedLocks[str] = KeyedLocks()
        self._users: LruCache[str, _Badge] = LruCache("badges", MAX_USERS)

    def mark(self, user_id: str, room_nid: int) -> None:
        """Have a room of a user counted again."""
        badge = self._users.peek(user_id)
        if badge is not None:
            badge.changed.add(room_nid)

    async def total(self, user_id: str) -> int:
        """The number of unread messages of a user."""
        async with self._locks.hold(user_id):
            badge = self._users.get(user_id)
            if badge is None:
                badge = await self._build(user_id)
            while badge.changed:
                room_nid = badge.changed.pop()
                try:
                    badge.set(room_nid, await self._count(user_id, room_nid))
                except BaseException:
                    badge.changed.add(room_nid)
                    raise
            return badge.total

    async def _build(self, user_id: str) -> _Badge:
        # It is there before its rooms are read, so that no mark is missed.
        badge = self._users.put(user_id, _Badge())
        try:
            joined = await self._user_rooms.joined(user_id)
            badge.changed.update(await self._db.run(rooms_with_unread, user_id, joined, MAX_ROOMS))
        except BaseException:
            self._users.pop(user_id)
            raise
        return badge

    async def _count(self, user_id: str, room_nid: int) -> int:
        room = self._rooms.loaded(room_nid) or await self._rooms.by_number(room_nid)
        if room is None or room.membership(user_id) != "join":
            return 0
        count = self._unread_counts.cached(room, user_id)
        if count is None:
            count = await self._unread_counts.counts(room, user_id)
        return count.notification

    def _apply_state(self, entry: StateChanged) -> None:
        if isinstance(entry, EventAppended):
            # The user's own event reads the room.
            self.mark(entry.stored.event.sender, entry.room_nid)
        if entry.changes:
            for user_id, _, _ in entry.members():
                self.mark(user_id, entry.room_nid)

    def _mark_all(self, room_nid: int) -> None:
        """Have a room counted again for all whose badge it is a part of."""
        for _, badge in self._users.items():  # noqa: PERF102  # it is no dict
            if room_nid in badge.counts:
                badge.changed.add(room_nid)

    def apply(self, entries: Sequence[Any]) -> None:
        """Apply log entries: mark what has to be counted again (called by the log)."""
        for entry in entries:
            if isinstance(entry, ReceiptsChanged):
                for receipt in entry.receipts:
                    self.mark(receipt.user_id, entry.room)
            elif isinstance(entry, ThreadSubscriptionChanged):
                self.mark(entry.user_id, entry.room)
            elif isinstance(entry, StateChanged):
                self._apply_state(entry)
            elif isinstance(entry, EventsPurged):
                self._mark_all(entry.room)
            elif isinstance(entry, AccountDataChanged):
                if entry.type in (PUSH_RULES, IGNORED_USER_LIST):
                    self._users.pop(entry.user_id)
            elif isinstance(entry, AccountDataErased):
                self._users.pop(entry.user_id)

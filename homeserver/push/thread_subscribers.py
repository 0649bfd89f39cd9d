"""The subscribers of threads, for the evaluation of push rules: in memory once a thread is in use.

Spec: MSC4306
"""

from collections.abc import Collection, Sequence
from typing import Any

from homeserver.accounts.user_data.account_data import AccountDataErased
from homeserver.concurrency.lru_cache import LruCache
from homeserver.concurrency.not_in_memory import NotInMemory
from homeserver.protocol.identifiers import is_valid_event_id
from homeserver.push.thread_subscription_changed import ThreadSubscriptionChanged
from homeserver.push.threads import Threads
from homeserver.rooms.events.stored_event import StoredEvent
from homeserver.rooms.room.room import Room
from homeserver.storage.database.database import Database
from homeserver.storage.push.thread_subscriptions import subscribers_of
from homeserver.streams.log_cache import LogCache

MAX_SUBSCRIBERS = 200_000  # of all threads in memory together, and the threads themselves

_Thread = tuple[int, str]  # the room, and the id of the root
_Change = ThreadSubscriptionChanged | AccountDataErased


class ThreadSubscribers:
    """Finds the local users who are subscribed to the thread of an event.

    `apply` is to be subscribed to the log.
    """

    def __init__(self, db: Database, threads: Threads) -> None:
        self._db = db
        self._threads = threads
        # By user: the position at which they subscribed.
        self._subscribers: LogCache[_Thread, dict[str, int], _Change] = LogCache(
            LruCache(
                "thread_subscribers", MAX_SUBSCRIBERS, size_of=lambda _, users: 1 + len(users)
            ),
            self._load,
            _apply,
        )

    def of(self, room: Room, stored: StoredEvent) -> Collection[str]:
        """The subscribers of an event's thread; nobody outside of threads. Raises `NotInMemory`."""
        root = self._threads.of(room, stored)
        if root is None or not is_valid_event_id(root):
            # Senders may write anything, also what the database cannot look up.
            return ()
        thread = room.room_nid, root
        found = self._subscribers.find(thread)
        if found is None:
            raise NotInMemory(lambda: self._subscribers.get(thread))
        return found.keys()

    def apply(self, entries: Sequence[Any]) -> None:
        """Apply log entries (called by the log)."""
        for entry in entries:
            if isinstance(entry, ThreadSubscriptionChanged):
                self._subscribers.publish((entry.room, entry.root), entry)
            elif isinstance(entry, AccountDataErased):
                self._subscribers.publish_to_all(entry)

    async def _load(self, thread: _Thread) -> dict[str, int]:
        return await self._db.run(subscribers_of, *thread)


def _apply(users: dict[str, int], change: _Change) -> None:
    if users.get(change.user_id, 0) > change.position:
        return  # they were loaded after this change
    if isinstance(change, ThreadSubscriptionChanged) and change.is_subscribed:
        users[change.user_id] = change.position
    else:
        users.pop(change.user_id, None)

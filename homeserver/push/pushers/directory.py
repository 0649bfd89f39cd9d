"""The directory of pushers: which users have some, and those of users who were pushed to lately.

The ids of all users with pushers are in memory, so that an event costs nothing for those who have
none.
"""

from collections.abc import AsyncIterator, Collection, Sequence
from itertools import chain
from typing import Any

import msgspec

from homeserver.accounts.sessions.devices import DevicesRemoved
from homeserver.concurrency.clock import Clock
from homeserver.concurrency.lru_cache import LruCache
from homeserver.push.pushers.pusher import Pusher, PushersChanged
from homeserver.storage.database.database import Database
from homeserver.storage.push.pushers import (
    pushers_of,
    users_with_pushers,
    users_with_pushers_behind,
)

MAX_USERS = 50_000  # whose pushers are in memory
MAX_ATTEMPTS = 5
USERS_AT_ONCE = 500  # whose pushers are read in one query

FRESH_SECONDS = 300.0  # after which changes by other processes, such as commands, are noticed

UserPushers = tuple[Pusher, ...]


class _Cached(msgspec.Struct, frozen=True):
    pushers: UserPushers
    read_at: float


class PusherDirectory:
    """Finds pushers. `apply` is to be subscribed to the log.

    `users` are those who have pushers; some may have none any more.
    """

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._cache: LruCache[str, _Cached] = LruCache("pushers", MAX_USERS)
        self.users: set[str] = set()
        self._generation = 0

    async def load(self) -> None:
        """Read which users have pushers. No entry may be published before."""
        self.users.update(await self._db.run(users_with_pushers))

    def find(self, user_id: str) -> UserPushers | None:
        """The pushers of a user, if they are in memory."""
        if user_id not in self.users:
            return ()
        cached = self._cache.get(user_id)
        return None if cached is None else cached.pushers

    async def of(self, user_id: str) -> UserPushers:
        """The pushers of a user."""
        found = self.find(user_id)
        return (await self.of_all([user_id]))[user_id] if found is None else found

    async def fresh(self, user_id: str) -> UserPushers:
        """The pushers of a user, as they were a few minutes ago at most."""
        cached = self._cache.peek(user_id)
        if cached is not None and self._clock.seconds() - cached.read_at > FRESH_SECONDS:
            await self._load([user_id])
        return await self.of(user_id)

    async def current(self, pusher: Pusher) -> Pusher | None:
        """A pusher as it was a few minutes ago at most; `None` if it is gone."""
        for each in await self.fresh(pusher.row.user_id):
            if each.number == pusher.number:
                return each
        return None

    async def behind(self) -> AsyncIterator[Pusher]:
        """The pushers for which it is stored that they lack events, some users' at a time."""
        user_ids = await self._db.run(users_with_pushers_behind)
        for first in range(0, len(user_ids), USERS_AT_ONCE):
            found = await self.of_all(user_ids[first : first + USERS_AT_ONCE])
            for pusher in chain.from_iterable(found.values()):
                if pusher.progress.behind_since is not None:
                    yield pusher

    async def of_all(self, user_ids: Collection[str]) -> dict[str, UserPushers]:
        """The pushers of some users."""
        found: dict[str, UserPushers] = {}
        missing = []
        for user_id in user_ids:
            pushers = self.find(user_id)
            if pushers is None:
                missing.append(user_id)
            else:
                found[user_id] = pushers
        return found | await self._load(missing) if missing else found

    async def _load(self, user_ids: Sequence[str]) -> dict[str, UserPushers]:
        for _ in range(MAX_ATTEMPTS):
            before = self._generation
            loaded: dict[str, UserPushers] = dict.fromkeys(user_ids, ())
            for row in await self._db.run(pushers_of, user_ids):
                loaded[row.user_id] += (Pusher(row),)
            if before == self._generation:
                for user_id, pushers in loaded.items():
                    if pushers:
                        self._put(user_id, pushers)
                    else:
                        self._cache.pop(user_id)
                        self.users.discard(user_id)
                break
        return loaded

    def _put(self, user_id: str, pushers: UserPushers) -> None:
        """Cache pushers; those in memory know better how far they have sent."""
        cached = self._cache.peek(user_id)
        if cached is not None and _versions(cached.pushers) == _versions(pushers):
            pushers = cached.pushers
        self._cache.put(user_id, _Cached(pushers, self._clock.seconds()))

    def forget(self, user_id: str) -> None:
        """Read a user's pushers again when they are needed."""
        self._cache.pop(user_id)
        self._generation += 1

    def apply(self, entries: Sequence[Any]) -> None:
        """Apply log entries: forget what was changed (called by the log)."""
        for entry in entries:
            if isinstance(entry, PushersChanged):
                for user_id in entry.user_ids:
                    self.users.add(user_id)
                    self.forget(user_id)
            elif isinstance(entry, DevicesRemoved) and entry.user_id in self.users:
                self.forget(entry.user_id)


def _versions(pushers: UserPushers) -> list[tuple[int, int, bool]]:
    return [(each.number, each.row.set_position, each.row.is_locked) for each in pushers]

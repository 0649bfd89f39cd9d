"""One-time keys and fallback keys: claiming those of local devices.

A key is deleted in the database before anybody gets it, so no key is given out twice, even across
a crash. The claims of concurrent requests are taken together, one statement at a time.

Spec: https://spec.matrix.org/v1.19/client-server-api/#one-time-and-fallback-keys
"""

from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from homeserver.concurrency.lru_cache import LruCache
from homeserver.encryption.changes import ClaimableKeysChanged
from homeserver.storage.database.database import Database
from homeserver.storage.encryption.one_time_keys import (
    WantedKey,
    take_one_time_keys,
    use_fallback_keys,
)
from homeserver.streams.log import Log

MAX_CLAIMS = 1_000  # in one statement
MAX_REMEMBERED = 50_000  # claimed keys that are not accepted again

KeyName = tuple[str, str, str, str]  # user id, device id, algorithm, key id


class ClaimableKey(NamedTuple):
    """A key that was claimed: `key` is JSON."""

    key_id: str
    key: bytes


class _Request(NamedTuple):
    """The claims of one request, whose keys come together or not at all."""

    wanted: Sequence[WantedKey]
    done: "Deferred[list[ClaimableKey | None]]"


class OneTimeKeys:
    """Hands out the keys of local devices."""

    def __init__(self, db: Database, log: Log) -> None:
        self._db = db
        self._log = log
        self._waiting: deque[_Request] = deque()
        self._is_claiming = False
        self._claimed: LruCache[KeyName, bool] = LruCache("claimed_keys", MAX_REMEMBERED)

    def was_claimed(self, key: KeyName) -> bool:
        """Whether a key was given out lately: a repeated upload must not bring it back."""
        return key in self._claimed

    async def claim(self, wanted: Sequence[WantedKey]) -> list[ClaimableKey | None]:
        """A key for each claim: a one-time key, else the fallback key, else `None`."""
        if not wanted:
            return []
        request = _Request(wanted, Deferred())
        self._waiting.append(request)
        if not self._is_claiming:
            self._is_claiming = True
            Deferred.fromCoroutine(self._claim_all())
        return await request.done

    async def _claim_all(self) -> None:
        while self._waiting:
            batch = self._next_batch()
            try:
                found = iter(await self._take([each for one in batch for each in one.wanted]))
            except Exception:
                failure = Failure()
                for request in batch:
                    request.done.errback(failure)
            else:
                for request in batch:
                    request.done.callback(list(islice(found, len(request.wanted))))
        self._is_claiming = False

    def _next_batch(self) -> list[_Request]:
        """The oldest requests: as many as one statement takes, and one at least."""
        batch = [self._waiting.popleft()]
        size = len(batch[0].wanted)
        while self._waiting and size + len(self._waiting[0].wanted) <= MAX_CLAIMS:
            batch.append(self._waiting.popleft())
            size += len(batch[-1].wanted)
        return batch

    async def _take(self, wanted: Sequence[WantedKey]) -> list[ClaimableKey | None]:
        found: list[ClaimableKey | None] = [None] * len(wanted)
        changed: dict[str, set[str]] = {}
        for row in await self._db.run(take_one_time_keys, wanted, self._log.position):
            found[row.place - 1] = ClaimableKey(row.key_id, row.key)
            claimed = wanted[row.place - 1]
            self._claimed.put((*claimed, row.key_id), True)
            changed.setdefault(claimed.user_id, set()).add(claimed.device_id)
        places = [place for place, key in enumerate(found) if key is None]
        if places:
            missing = [wanted[place] for place in places]
            for row in await self._db.run(use_fallback_keys, missing):
                found[places[row.place - 1]] = ClaimableKey(row.key_id, row.key)
                claimed = missing[row.place - 1]
                changed.setdefault(claimed.user_id, set()).add(claimed.device_id)
        for user_id, device_ids in changed.items():
            entry = ClaimableKeysChanged(
                self._log.next_position(), user_id, tuple(sorted(device_ids))
            )
            self._log.append(entry).addErrback(lambda _: None)
        return found

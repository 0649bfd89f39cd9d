"""Two owners of shards in one process: two logs, each with its own clock, for half of the shards.

What an owner has committed is published when the test lets it: batches of the two come in any order
relative to each other, and in order within each. So it is for a worker that follows several owners.
"""

import time
from collections.abc import Coroutine, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, DeferredLock, gatherResults

from homeserver.storage.database.database import Database
from homeserver.storage.database.server_state import raise_position_bound
from homeserver.streams.counters import Counters, open_counters
from homeserver.streams.log import Log
from homeserver.streams.positions import MAX_POSITION
from homeserver.streams.shards import shard_of, shard_of_user
from homeserver.streams.sync_tokens import PublishedPositions

OWNERS = 2
_owner: ContextVar[int] = ContextVar("owner", default=0)


def owner_of_room(room_nid: int) -> int:
    return shard_of(room_nid) % OWNERS


def owner_of_user(user_id: str) -> int:
    return shard_of_user(user_id) % OWNERS


async def run_as(owner: int, action: Coroutine[Any, Any, Any]) -> Any:
    """Run an action whose facts are those of one owner's shards."""
    _owner.set(owner)
    return await action


@dataclass(frozen=True)
class Beat:
    """A log entry that only says that nothing lower follows."""

    position: int


class SkewedClock:
    """A clock whose wall clock can be set, while its timers are those of the reactor."""

    ahead = 0.0  # seconds

    def seconds(self) -> float:
        return reactor.seconds()  # type: ignore[attr-defined]

    def wall_seconds(self) -> float:
        return time.time() + self.ahead

    def callLater(self, delay: float, call: Any, *args: Any) -> Any:
        return reactor.callLater(delay, call, *args)  # type: ignore[attr-defined]


class Owner:
    """One owner: what it commits is published while it is not held."""

    def __init__(self, db: Database, lock: DeferredLock, counters: Counters, clock: Any) -> None:
        self.clock = clock
        self.positions = counters.positions
        self.unpublished = 0
        self._db = db
        self._lock = lock
        self._held: Deferred[None] | None = None
        self.log = Log(clock, self._write, counters, on_batch=self._count)

    def hold(self) -> None:
        """Publish nothing for now."""
        if self._held is None:
            self._held = Deferred()

    def release(self) -> None:
        """Publish what is committed, and what will be."""
        held, self._held = self._held, None
        if held is not None:
            held.callback(None)

    def append(self, entry: Any, rows: Sequence[Any]) -> Deferred[None]:
        self.unpublished += 1
        return self.log.append(entry, rows)

    def beat(self) -> None:
        """Say how far the owner is, if it has nothing else to say."""
        if not self.unpublished:
            self.append(Beat(self.log.next_position()), ())

    def _count(self, changes: int, _: float) -> None:
        self.unpublished -= changes

    async def _write(self, batch: Any) -> None:
        await self._lock.acquire()
        try:
            await self._db.write_batch(batch)
        finally:
            self._lock.release()
        while self._held is not None:
            released: Deferred[None] = Deferred()
            self._held.chainDeferred(released)
            await released


@dataclass(frozen=True)
class TwoPositions:
    """How far each owner had published at one moment."""

    positions: tuple[int, ...]
    even = None

    @property
    def base(self) -> int:
        return min(self.positions)

    def at(self, shard: int) -> int:
        return self.positions[shard % OWNERS]


class TwoOwners:
    """Two logs that can stand where one is expected, and how far they are published (`Seen`)."""

    def __init__(self, owners: Sequence[Owner]) -> None:
        self.owners = owners
        self.seen = self

    @classmethod
    async def open(cls, db: Database) -> "TwoOwners":
        lock = DeferredLock()
        owners = []
        for slot in range(OWNERS):
            clock: Any = SkewedClock()
            counters = await open_counters(db, clock, slot=slot)
            counters.positions.bound = MAX_POSITION  # clocks may jump; `close` stores a bound
            owners.append(Owner(db, lock, counters, clock))
        return cls(owners)

    async def close(self, db: Database) -> None:
        """Have the next owners begin above all that these have handed out."""
        highest = max(owner.positions.last for owner in self.owners)
        await db.run(raise_position_bound, highest)

    def take_over(self) -> None:
        """Have all owners go on above what any of them has written: shards may move now."""
        highest = max(owner.positions.last for owner in self.owners)
        for owner in self.owners:
            if owner.positions.last < highest:
                steps = -(-(highest - owner.positions.last) // 1024)
                owner.positions.last += steps * 1024

    @property
    def highest(self) -> int:
        return max(owner.log.position for owner in self.owners)

    def snapshot(self) -> PublishedPositions:
        return TwoPositions(tuple(owner.log.position for owner in self.owners))

    @property
    def position(self) -> int:
        return self.highest

    @property
    def last_event_number(self) -> int:
        return max(owner.log.last_event_number for owner in self.owners)

    def next_position(self) -> int:
        return self.owners[_owner.get()].log.next_position()

    def next_event_number(self) -> int:
        return self.owners[_owner.get()].log.next_event_number()

    def append(self, entry: Any, rows: Sequence[Any] = ()) -> Deferred[None]:
        return self.owners[entry.position % OWNERS].append(entry, rows)

    def subscribe(self, subscriber: Any) -> None:
        for owner in self.owners:
            owner.log.subscribe(subscriber)

    def check_open(self) -> None:
        for owner in self.owners:
            owner.log.check_open()

    def written(self) -> Deferred[Any]:
        return gatherResults([owner.log.written() for owner in self.owners])

    def flush(self) -> Deferred[Any]:
        for owner in self.owners:
            owner.release()
        return gatherResults([owner.log.flush() for owner in self.owners])

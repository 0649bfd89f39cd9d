"""The reachability of each server that this one sends to, in memory and in the database.

In memory are all servers that failed and some that did not. Changes are written a little later, in
one statement for all; a server that responds is written once an hour. After a start the earlier
pauses continue, so that a restart does not send everything at once to servers that are unavailable.

Spec: https://spec.matrix.org/v1.19/server-server-api/#transactions
"""

import random
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from federation.transport.errors import BackingOff
from homeserver.concurrency.backoff import Backoff
from homeserver.concurrency.deferreds import wait_for_completion
from homeserver.concurrency.lru_cache import LruCache
from homeserver.storage.database.database import Database
from homeserver.storage.federation import destinations as storage

MAX_SERVERS = 20_000
WRITE_AFTER = 1.0  # seconds
SAVE_SUCCESS_SECONDS = 3_600.0  # seconds

log = Logger()


class DestinationHealth:
    """The health of all servers. `load` first, and `await stop()` after everything else."""

    def __init__(self, db: Database, reactor: Any) -> None:
        self._db = db
        self._clock = reactor
        self._known: LruCache[str, Backoff] = LruCache("destinations", MAX_SERVERS)
        self._unwritten: dict[str, Backoff] = {}
        self._due: Any = None
        self._writing: Deferred[None] | None = None
        self._listeners: list[Callable[[str], None]] = []

    def subscribe(self, listener: Callable[[str], None]) -> None:
        """Call `listener` with the name of each server that had failed and can be reached again."""
        self._listeners.append(listener)

    async def load(self) -> None:
        """Read the servers that failed."""
        for server, row in (await self._db.run(storage.failing, MAX_SERVERS)).items():
            self._known.put(
                server, Backoff(row.failures, row.failed_at, row.retry_at, row.succeeded_at)
            )

    async def stop(self) -> None:
        """Write the changes that are not stored yet."""
        if self._due is not None:
            self._due.cancel()
            self._due = None
        if self._writing is not None:
            await wait_for_completion(self._writing)
        self._begin_writing()
        if self._writing is not None:
            await wait_for_completion(self._writing)

    def health_of(self, server: str) -> Backoff:
        """The recorded failures and pause of a server."""
        return self._known.get(server) or Backoff()

    def check(self, server: str) -> None:
        """Raise `BackingOff` while the server is in its pause."""
        backoff = self.health_of(server)
        now = self._clock.seconds()
        if not backoff.may_try(now):
            pause = round(backoff.retry_at - now)
            raise BackingOff(
                server, f"failed {backoff.failures} times, backing off for {pause}s more"
            )

    def failed(self, server: str) -> None:
        """A request brought no response of a working homeserver."""
        old = self.health_of(server)
        new = old.failed(self._clock.seconds(), random.random())  # noqa: S311  # spreads load
        if new is not old:
            self._keep(server, new)

    def succeeded(self, server: str) -> None:
        """The server responded, so it is reachable."""
        old, now = self.health_of(server), self._clock.seconds()
        if old.failures or now - (old.succeeded_at or 0.0) >= SAVE_SUCCESS_SECONDS:
            self._keep(server, old.succeeded(now))
        if old.failures:
            # Queues wait no longer, whatever this request was for.
            self._notify(server)

    def received_from(self, server: str) -> None:
        """The server sent a signed request: it is reachable."""
        old = self._known.get(server)
        if old is not None and old.failures:
            new = old.reached()
            if new != old:
                self._keep(server, new)
            self._notify(server)

    def _notify(self, server: str) -> None:
        for listener in self._listeners:
            listener(server)

    def _keep(self, server: str, backoff: Backoff) -> None:
        self._known.put(server, backoff)
        self._unwritten[server] = backoff
        if self._due is None:
            self._due = self._clock.callLater(WRITE_AFTER, self._begin_writing)

    def _begin_writing(self) -> None:
        self._due = None
        if self._writing is None:
            writing = self._writing = Deferred.fromCoroutine(self._write())
            writing.addBoth(self._written)

    def _written(self, outcome: Failure | None) -> None:
        self._writing = None
        if isinstance(outcome, Failure):
            # Nothing is lost that the next request to each server would not show again.
            log.warn("could not store the health of destinations: {error}", error=outcome.value)

    async def _write(self) -> None:
        while self._unwritten:
            unwritten, self._unwritten = self._unwritten, {}
            rows = [
                storage.Destination(
                    server, one.failures, one.failed_at, one.retry_at, one.succeeded_at
                )
                for server, one in unwritten.items()
            ]
            await self._db.run(storage.save, rows)

"""The embedded PostgreSQL under a reactor: started and stopped in a thread, and kept running."""

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from homeserver.storage.embedded import EmbeddedPostgres

WATCH_SECONDS = 0.5
log = Logger()


class SupervisedPostgres:
    """An `EmbeddedPostgres` under a reactor, brought back whenever its postmaster dies."""

    def __init__(self, reactor: Any, postgres: EmbeddedPostgres) -> None:
        self._reactor = reactor
        self._postgres = postgres
        self._watching = LoopingCall(self._look_after)
        self._watching.clock = reactor
        self._watched: Deferred[Any] | None = None

    @property
    def dsn(self) -> str:
        """How to connect; valid once `start` has fired."""
        return self._postgres.dsn

    def start(self) -> Deferred[None]:
        """Start PostgreSQL; fires when it answers, or fails with `EmbeddedPostgresError`."""
        return self._in_thread(self._postgres.start)

    def watch(self) -> None:
        """From now on, run the postmaster again whenever it has died."""
        self._watched = self._watching.start(WATCH_SECONDS, now=False)

    def stop(self) -> Deferred[None]:
        """Stop watching and stop PostgreSQL."""
        if self._watched is None:
            return self._in_thread(self._postgres.stop)
        # A restart that is under way comes to its end first.
        self._watching.stop()
        return self._watched.addCallback(lambda _: self._in_thread(self._postgres.stop))

    def _look_after(self) -> Deferred[None] | None:
        if self._postgres.is_running():
            return None
        log.error("PostgreSQL died; starting it again")
        return self._in_thread(self._postgres.restart).addErrback(
            lambda failure: log.failure("PostgreSQL did not start", failure=failure)
        )

    def _in_thread(self, function: Any) -> Deferred[None]:
        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), function)

"""The embedded PostgreSQL under a reactor: started and stopped in a thread, and kept running."""

from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from homeserver.concurrency.periodic import PeriodicTask
from homeserver.concurrency.thread_pools import run_in_own_thread
from homeserver.storage.database.embedded import EmbeddedPostgres, Interrupted

WATCH_SECONDS = 0.5
log = Logger()


class SupervisedPostgres:
    """An `EmbeddedPostgres` under a reactor, restarted whenever its postmaster exits."""

    def __init__(self, reactor: Any, postgres: EmbeddedPostgres) -> None:
        self._reactor = reactor
        self._postgres = postgres
        self._watching = PeriodicTask(
            reactor, WATCH_SECONDS, self._look_after, name="the supervision of PostgreSQL"
        )
        self._starting: Deferred[None] | None = None  # fires when the thread of `start` has ended

    @property
    def dsn(self) -> str:
        """The connection string; valid once `start` has fired."""
        return self._postgres.dsn

    def start(self) -> Deferred[None]:
        """Start PostgreSQL; fires when it answers, or fails with `EmbeddedPostgresError`."""
        outcome: Deferred[None] = Deferred()
        # The thread continues if a caller cancels its wait: `stop` waits for the thread itself.
        ended: Deferred[None] = Deferred()
        self._starting = ended

        def end(result: Any) -> None:
            self._starting = None
            outcome.callback(result)
            ended.callback(None)

        self._in_thread(self._postgres.start).addBoth(end)
        return outcome

    def watch(self) -> None:
        """From now on, restart the postmaster whenever it has exited."""
        self._watching.start()

    def stop(self) -> Deferred[None]:
        """Stop watching and stop PostgreSQL, even while it starts."""
        # Let a start or restart in progress end soon.
        self._postgres.interrupt()
        restarted = self._watching.stop()
        under_way = restarted if self._starting is None else self._starting
        return under_way.addCallback(lambda _: self._in_thread(self._postgres.stop))

    def _look_after(self) -> Deferred[None] | None:
        if self._postgres.is_running():
            return None
        log.error("embedded PostgreSQL exited; restarting")
        return self._in_thread(self._postgres.restart).addErrback(self._not_restarted)

    def _not_restarted(self, failure: Failure) -> None:
        if failure.check(Interrupted) is None:  # otherwise the server is stopping
            log.failure("PostgreSQL did not start", failure=failure)

    def _in_thread(self, function: Any) -> Deferred[None]:
        return run_in_own_thread(self._reactor, "embedded PostgreSQL", function)

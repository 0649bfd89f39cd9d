"""The program: makes the parts of one homeserver, starts them, and stops them.

This module has no rules of its own. Two homeservers can run in one process: they share only the
reactor.
"""

import os
import threading
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger
from twisted.python.failure import Failure

from homeserver.accounts.appservices.appservices import Appservices
from homeserver.accounts.appservices.senders import register_senders
from homeserver.concurrency.clock import steady
from homeserver.concurrency.deferreds import wait_for_completion, with_timeout
from homeserver.concurrency.stop_signals import call_on_stop_signal
from homeserver.concurrency.thread_pools import run_in_own_thread
from homeserver.config.appservices import load_registrations
from homeserver.config.errors import CertificateError, ConfigError
from homeserver.config.settings import Settings
from homeserver.config.signing_key import load_or_create_signing_key
from homeserver.observability.garbage import GarbageCollection
from homeserver.observability.metrics import Metrics, ReactorLag
from homeserver.protocol.appservices.appservice import Appservice
from homeserver.storage.database.database import Database, DatabaseUnavailable
from homeserver.storage.database.embedded import EmbeddedPostgres, EmbeddedPostgresError
from homeserver.storage.database.migrate import MigrationError, migrate_in_thread
from homeserver.storage.database.process_identity import this_process
from homeserver.storage.database.server_state import WrongServer, claim_server_name
from homeserver.storage.database.supervised_postgres import SupervisedPostgres
from homeserver.storage.database.workers import AnotherProcess, claim_database
from homeserver.storage.rooms.newest_events import rooms_of_newest_events
from homeserver.streams.counters import CounterReserve, open_counters
from homeserver.streams.lease import Lease
from homeserver.streams.log import Log, Transcode
from homeserver.web.listeners import CannotListen
from homeserver.web.routes import Route
from homeserver.wiring.server import ServerParts

PART_SECONDS = 5.0  # for each part of the server to end, beside the requests
POSTGRES_SECONDS = 75.0  # for the embedded PostgreSQL, which may have a lot to write
KILL_AFTER_SECONDS = 150.0  # beside those for requests, for the process to end altogether
RECENT_EVENTS = 1_000  # rooms of the newest events: users may have been typing there

START_ERRORS = (
    ConfigError,
    EmbeddedPostgresError,
    MigrationError,
    WrongServer,
    AnotherProcess,
    CertificateError,
    CannotListen,
    DatabaseUnavailable,
    OSError,
)
"""Errors that prevent a start and that an operator can fix; the operator sees their messages."""

log = Logger()


class Homeserver:
    """One homeserver, from its settings. `transcode` is that of its log, for tests."""

    def __init__(
        self, settings: Settings, reactor: Any, *, transcode: Transcode | None = None
    ) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.broken: Deferred[None] = Deferred()
        self._reactor = reactor
        self._transcode = transcode
        self._starting: Deferred[None] | None = None
        self._started = AsyncExitStack()  # unwound, it stops what was started
        self._parts: ServerParts | None = None
        self._ending: Deferred[None] | None = None
        self._ended_well = True

    @property
    def parts(self) -> ServerParts:
        """The parts of the server, once it has started."""
        assert self._parts is not None, "the server runs"
        return self._parts

    @property
    def ports(self) -> list[int]:
        """The TCP ports of the listeners, in the order of the configuration."""
        addresses = self.parts.listeners.addresses
        return [address.port for address in addresses if hasattr(address, "port")]

    @property
    def routes(self) -> list[Route]:
        """The routes of all listeners, in the order of the configuration."""
        return self.parts.listeners.routes

    async def start(self) -> None:
        """Start the database, then all other parts, and the listeners last.

        Raises one of `START_ERRORS`, which an operator can fix, and `CancelledError` if the start
        was interrupted; what was started is stopped again.
        """
        self._starting = ensureDeferred(self._start())
        try:
            await self._starting
        except BaseException:
            await self.stop()
            raise

    def interrupt_start(self) -> None:
        """Have `start`, if it is under way, stop what it has started and fail."""
        if self._starting is not None:
            self._starting.cancel()

    async def stop(self) -> bool:
        """Finish requests, end long polls and sockets, write queued data, stop the database.

        Each part has a bounded time to end, and the next one is stopped even if that fails. Returns
        whether all ended well. A second call waits for the first.
        """
        if self._ending is None:
            self._ending = Deferred.fromCoroutine(self._started.aclose())
        await wait_for_completion(self._ending)
        return self._ended_well

    def _on_stop(
        self, part: str, stop: Callable[[], Awaitable[None]], seconds: float = PART_SECONDS
    ) -> None:
        """Register `stop`, which may take `seconds`, to be called before those of earlier parts."""
        self._started.push_async_callback(self._end, part, stop, seconds)

    async def _end(self, part: str, stop: Callable[[], Awaitable[None]], seconds: float) -> None:
        try:
            await with_timeout(stop(), seconds, self._reactor)
        except Exception as error:
            self._ended_well = False
            log.error("{part} did not end well: {error!r}", part=part, error=error)

    def reload(self) -> None:
        """Read the certificates of the listeners and the registration files again."""
        if self._parts is not None:
            self._parts.listeners.reload_certificates()
            if self._parts.certificates is not None:
                self._parts.certificates.renewal.reload()
            reloading = Deferred.fromCoroutine(self._reload_appservices(self._parts))
            reloading.addErrback(lambda failure: log.failure("the reload failed", failure))

    async def _reload_appservices(self, parts: ServerParts) -> None:
        try:
            registered = self._load_appservices()
        except ConfigError as error:
            log.error("the registrations stay as they were: {error}", error=error)
            return
        await register_senders(parts.db, self._reactor, registered)
        parts.account_core.appservices.replace(registered)
        await parts.appservices.transactions.reload()
        log.info("application services: {ids}", ids=", ".join(each.id for each in registered))

    def _load_appservices(self) -> list[Appservice]:
        settings = self.settings
        return load_registrations(
            settings.appservices, settings.appservices_folder, settings.server_name
        )

    async def _start(self) -> None:
        settings, reactor = self.settings, self._reactor
        appservices = Appservices(self._load_appservices())
        key = load_or_create_signing_key(settings.signing_key_path)
        db, lease = await self._open_database()
        await db.run(claim_server_name, settings.server_name)
        lease.start()
        lag = ReactorLag(reactor, self.metrics)
        self._on_stop("the measurement of the reactor's lag", lag.stop)
        counters = await open_counters(db, reactor)
        stream_log = Log(
            reactor,
            db.write_batch,
            counters,
            on_batch=self.metrics.batch_committed,
            transcode=self._transcode,
        )
        self._on_stop("the log", stream_log.flush)
        stream_log.broken.addCallback(self._broke)
        reserve = CounterReserve(db, reactor, counters)
        self._on_stop("the reservation of positions", reserve.stop)
        active_rooms = await db.run(rooms_of_newest_events, RECENT_EVENTS)
        parts = self._parts = ServerParts(
            reactor, settings, key, db, stream_log, self.metrics, active_rooms, appservices
        )
        self._on_stop_of_parts(parts)
        await register_senders(db, reactor, appservices.all)
        await parts.account_core.load()
        await parts.room_core.sticky_events.load()
        await parts.retention.load()
        await parts.appservices.transactions.load()
        await parts.search.load()
        await parts.readers.load()
        await parts.federation.start()
        reserve.start()
        parts.accounts.start()
        parts.rooms.start()
        parts.retention.start()
        parts.encryption.start()
        await parts.media.start()
        parts.url_previews.start()
        await parts.sync.start()
        parts.stream.start()
        lag.start()
        parts.listeners.start()
        if parts.certificates is not None:
            parts.certificates.renewal.start()
        # A server that gets a request of this one assumes that this one is reachable.
        await parts.federated_rooms.start()
        parts.readers.start()
        parts.user_directory.start()
        parts.appservices.transactions.start()
        parts.job_runner.start()

    def _on_stop_of_parts(self, parts: ServerParts) -> None:
        """Register the stop of all parts, the last first, even if their start fails half-way."""
        self._on_stop("the accounts", parts.accounts.stop)
        self._on_stop("the rooms", parts.rooms.stop)
        self._on_stop("the retention of messages", parts.retention.stop)
        self._on_stop("the requests to application services", parts.appservice_queries.stop)
        self._on_stop("federation", parts.federation.stop)
        self._on_stop("the exchange with other servers", parts.federated_rooms.stop)
        self._on_stop("encryption", parts.encryption.stop)
        self._on_stop("media", parts.media.stop)
        self._on_stop("URL previews", parts.url_previews.stop)
        self._on_stop("sync", parts.sync.stop)
        self._on_stop("the readers of the log", parts.readers.stop)
        self._on_stop("the user directory", parts.user_directory.stop)
        self._on_stop("the search index", parts.search.stop)
        self._on_stop("the transactions of application services", parts.appservices.stop)
        self._on_stop("the background jobs", parts.job_runner.stop)
        if parts.certificates is not None:
            self._on_stop("the renewal of the certificate", parts.certificates.renewal.stop)
        timeout = self.settings.limits.shutdown_timeout
        self._on_stop(
            "the listeners", lambda: parts.listeners.stop(timeout), timeout + PART_SECONDS
        )

    def _broke(self, _: None) -> None:
        if not self.broken.called:
            self.broken.callback(None)

    async def _open_database(self) -> tuple[Database, Lease]:
        """Start PostgreSQL if necessary, and become the one process that uses the database."""
        settings = self.settings.database
        dsn = settings.dsn
        if dsn is None:
            embedded = EmbeddedPostgres(self.settings.postgres_dir)
            postgres = SupervisedPostgres(self._reactor, embedded)
            self._on_stop("PostgreSQL", postgres.stop, POSTGRES_SECONDS)
            await postgres.start()
            postgres.watch()
            dsn = postgres.dsn
        await migrate_in_thread(self._reactor, dsn)
        process = this_process()
        worker, former = await run_in_own_thread(
            self._reactor, "the claim of the database", claim_database, dsn, process
        )
        if former is not None:
            log.warn("took the database over from {former}, which ended early", former=former)
        db = Database(
            self._reactor,
            dsn,
            pool_size=settings.pool_size,
            prepare=settings.prepared_statements,
            statement_timeout_seconds=settings.statement_timeout,
            worker=worker,
            application_name=process.application_name,
        )
        await db.open()
        self._on_stop("the database's connections", db.close, 2 * PART_SECONDS)
        lease = Lease(db, self._reactor, worker)
        lease.lost.addCallback(self._broke)
        self._on_stop("the lease of the database", lease.give_back)
        return db, lease


def run_server(
    settings: Settings,
    ready: Callable[[Homeserver], None],
    not_started: Callable[[str], None],
    on_hangup: Callable[[Callable[[], None]], None],
) -> int:
    """Run a homeserver until SIGINT or SIGTERM; a second signal ends at once. The exit status.

    It is 1 if the server did not start, could not continue, or did not stop cleanly.
    `ready(server)` is called once it listens, or `not_started(reason)` if it cannot start.
    `on_hangup` gets the function to call at SIGHUP.
    """
    from twisted.internet import reactor as installed

    reactor: Any = steady(installed)
    server = Homeserver(settings, reactor)
    on_hangup(lambda: reactor.callFromThread(server.reload))
    run = _Run(reactor, server, ready, not_started)
    call_on_stop_signal(reactor, run.stop)
    reactor.callWhenRunning(run.begin)
    reactor.run(installSignalHandlers=False)
    return run.status


class _Run:
    """One run of a homeserver, from the start of the reactor to its end."""

    def __init__(
        self,
        reactor: Any,
        server: Homeserver,
        ready: Callable[[Homeserver], None],
        not_started: Callable[[str], None],
    ) -> None:
        self.status = 0
        self._reactor = reactor
        self._server = server
        self._ready = ready
        self._not_started = not_started
        self._is_up = False
        self._is_stopping = False
        self._is_ending = False

    def begin(self) -> None:
        """Start the server."""
        if self._is_stopping:
            _stop_reactor(self._reactor)
            return
        log.info("homeserver {name} starts", name=self._server.settings.server_name)
        self._server.broken.addCallback(self._broke)
        ensureDeferred(self._server.start()).addCallbacks(self._started, self._failed)

    def stop(self) -> None:
        """Stop the server, also while it starts."""
        self._is_stopping = True
        if self._is_up:
            self._end()
        else:
            log.info("stopping")
            self._server.interrupt_start()

    def _started(self, _: object) -> None:
        self._is_up = True
        log.info("homeserver {name} is ready", name=self._server.settings.server_name)
        GarbageCollection(self._reactor).start()
        self._ready(self._server)

    def _failed(self, failure: Failure) -> None:
        if not self._is_stopping:
            self.status = 1
            reason = " ".join(failure.getErrorMessage().split())
            if failure.check(DatabaseUnavailable):
                reason = f"cannot use the database: {reason}"
            if failure.check(*START_ERRORS):
                log.critical("the server did not start: {reason}", reason=reason)
            else:
                log.failure("the server did not start", failure)
            self._not_started(reason)
        elif not failure.check(CancelledError, *START_ERRORS):
            log.failure("the start was not interrupted cleanly", failure)
        _stop_reactor(self._reactor)

    def _broke(self, _: object) -> None:
        self.status = 1
        self._end()

    def _end(self) -> None:
        if self._is_ending:
            return
        self._is_ending = True
        log.info("stopping")
        # In case that something hangs, such as a thread, which cannot be stopped.
        seconds = self._server.settings.limits.shutdown_timeout + KILL_AFTER_SECONDS
        last_resort = threading.Timer(seconds, _die)
        last_resort.daemon = True
        last_resort.start()
        ensureDeferred(self._server.stop()).addBoth(self._stopped)

    def _stopped(self, result: bool | Failure) -> None:
        if isinstance(result, Failure):
            log.failure("the server did not stop cleanly", result)
        if result is not True:
            self.status = 1
        _stop_reactor(self._reactor)


def _die() -> None:
    log.critical("the process does not end by itself, killing it")
    os._exit(1)


def _stop_reactor(reactor: Any) -> None:
    with suppress(ReactorNotRunning):
        reactor.stop()

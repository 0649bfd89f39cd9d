"""The composition root: makes the objects of one homeserver, starts them, and stops them.

Nothing here decides anything. Two homeservers can run in one process: they share no object but the
reactor.
"""

import os
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, ensureDeferred
from twisted.internet.error import ReactorNotRunning
from twisted.logger import Logger
from twisted.python.failure import Failure

from homeserver.concurrency.clock import steady
from homeserver.concurrency.deferreds import wait_for_completion, with_timeout
from homeserver.concurrency.stop_signals import call_on_stop_signal
from homeserver.config.errors import CertificateError
from homeserver.config.settings import Settings
from homeserver.config.signing_key import load_or_create_signing_key, load_signing_keys
from homeserver.observability.garbage import GarbageCollection
from homeserver.observability.metrics import Metrics, ReactorLag
from homeserver.storage.database.database import Database, DatabaseUnavailable
from homeserver.storage.database.embedded import EmbeddedPostgres, EmbeddedPostgresError
from homeserver.storage.database.migrate import MigrationError, migrate_in_thread
from homeserver.storage.database.server_state import WrongServer, claim_server_name
from homeserver.storage.database.supervised_postgres import SupervisedPostgres
from homeserver.storage.rooms.events_at_start import rooms_of_newest_events
from homeserver.streams.health import DatabaseHealth
from homeserver.streams.log import Log
from homeserver.streams.positions import PositionReserve
from homeserver.web.listeners import CannotListen, Listeners
from homeserver.web.shutdown import Shutdown
from homeserver.wiring.accounts import Accounts
from homeserver.wiring.federated_rooms import FederatedRooms
from homeserver.wiring.federation import Federation
from homeserver.wiring.http import Http
from homeserver.wiring.metrics import watch
from homeserver.wiring.rate_limits import rate_limits_of
from homeserver.wiring.rooms import Rooms
from homeserver.wiring.stream import Stream
from homeserver.wiring.sync import Sync

PART_SECONDS = 5.0  # for each part of the server to end, beside the requests
POSTGRES_SECONDS = 75.0  # for the embedded PostgreSQL, which may have a lot to write
KILL_AFTER_SECONDS = 150.0  # beside those for requests, for the process to end altogether
RECENT_EVENTS = 1_000  # rooms of the newest events: there somebody may have been typing

START_ERRORS = (
    EmbeddedPostgresError,
    MigrationError,
    WrongServer,
    CertificateError,
    CannotListen,
    DatabaseUnavailable,
    OSError,
)
"""What keeps a server from starting and a person can mend: their texts are for people."""

log = Logger()


class Homeserver:
    """One homeserver, from its settings."""

    def __init__(self, settings: Settings, reactor: Any) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.broken: Deferred[None] = Deferred()
        self._reactor = reactor
        self._shutdown = Shutdown()
        self._starting: Deferred[None] | None = None
        self._postgres: SupervisedPostgres | None = None
        self._database: Database | None = None
        self._log: Log | None = None
        self._positions: PositionReserve | None = None
        self._accounts: Accounts | None = None
        self._rooms: Rooms | None = None
        self._sync: Sync | None = None
        self._federation: Federation | None = None
        self._federated_rooms: FederatedRooms | None = None
        self._listeners: Listeners | None = None
        self._lag = ReactorLag(reactor, self.metrics)
        self._ending: Deferred[None] | None = None
        self._ended_well = True

    @property
    def ports(self) -> list[int]:
        """The TCP ports that are listened at, in the order of the configuration."""
        assert self._listeners is not None, "the server runs"
        return [address.port for address in self._listeners.addresses if hasattr(address, "port")]

    async def start(self) -> None:
        """Start the database, then everything else, and last listen.

        Raises one of `START_ERRORS` for what a person can mend, and `CancelledError` where the
        start was interrupted; what was started is stopped again.
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
        """Finish requests, end long polls and sockets, write what waits, stop the database.

        Each part has a bounded time to end, and the next one is stopped whatever becomes of it.
        Gives whether all ended well. A second call waits for the first.
        """
        if self._ending is None:
            self._ending = Deferred.fromCoroutine(self._stop())
        await wait_for_completion(self._ending)
        return self._ended_well

    async def _stop(self) -> None:
        if self._listeners is not None:
            timeout = self.settings.limits.shutdown_timeout
            await self._end("the listeners", self._listeners.stop(timeout), timeout + PART_SECONDS)
        if self._sync is not None:
            self._sync.stop()
        if self._federated_rooms is not None:
            await self._end("the exchange with other servers", self._federated_rooms.stop())
        if self._federation is not None:
            await self._end("federation", self._federation.stop())
        if self._rooms is not None:
            await self._end("the rooms", self._rooms.stop())
        if self._accounts is not None:
            await self._end("the accounts", self._accounts.stop())
        if self._positions is not None:
            await self._end("the reservation of positions", self._positions.stop())
        if self._log is not None:
            await self._end("the log", self._log.flush())
        self._lag.stop()
        if self._database is not None:
            await self._end("the database's connections", self._database.close(), 2 * PART_SECONDS)
        if self._postgres is not None:
            await self._end("PostgreSQL", self._postgres.stop(), POSTGRES_SECONDS)

    async def _end(self, part: str, ending: Awaitable[None], seconds: float = PART_SECONDS) -> None:
        try:
            await with_timeout(ending, seconds, self._reactor)
        except Exception as error:
            self._ended_well = False
            log.error("{part} did not end well: {error!r}", part=part, error=error)

    def reload_certificates(self) -> None:
        """Read the certificates of the listeners again."""
        if self._listeners is not None:
            self._listeners.reload_certificates()

    async def _start(self) -> None:
        settings, reactor = self.settings, self._reactor
        key = load_or_create_signing_key(settings.signing_key_path)
        db = self._database = await self._open_database()
        await db.run(claim_server_name, settings.server_name)
        self._positions = PositionReserve(db, reactor)
        stream = self._log = Log(reactor, db.write_batch, *await self._positions.first())
        stream.on_batch = self.metrics.batch_committed
        stream.broken.chainDeferred(self.broken)
        accounts = self._accounts = Accounts(reactor, settings, key, db, stream)
        await accounts.erased_users.load()
        rate_limits = rate_limits_of(reactor, settings)
        rooms = self._rooms = Rooms(reactor, settings, key, db, stream, accounts, rate_limits)
        lively = await db.run(rooms_of_newest_events, RECENT_EVENTS)
        sync = self._sync = Sync(reactor, settings, db, stream, accounts, rooms, lively)
        keys = load_signing_keys(settings.signing_key_path)
        federation = self._federation = Federation(reactor, settings, keys, db)
        await federation.start()
        shared = self._federated_rooms = FederatedRooms(
            reactor, db, stream, federation, accounts, rooms, sync
        )
        http = Http(
            reactor,
            settings,
            self._shutdown,
            self.metrics,
            accounts,
            rate_limits,
            federation.authentication,
            accounts.pages,
        )
        socket = Stream(reactor, settings, stream, rate_limits, accounts, rooms, sync)
        watch(self.metrics, db, stream, rooms, sync, socket)
        routes = [
            *accounts.routes({"io.homeserver.stream": settings.websocket.enabled}),
            *rooms.routes(),
            *sync.routes(),
            *socket.routes(),
        ]
        federation_routes = [
            *accounts.federation_routes(),
            *federation.routes(accounts, rooms),
            *shared.routes(),
        ]
        health_checks = DatabaseHealth(db, stream, reactor).checks()
        self._listeners = http.listeners(routes, federation_routes, health_checks)
        self._shutdown.notify(sync.end_waits)
        self._shutdown.notify(socket.end_waits)
        self._shutdown.notify(shared.end_waits)
        self._shutdown.notify(federation.end_waits)
        self._positions.start(stream)
        accounts.start()
        rooms.start()
        await sync.start()
        socket.start()
        self._lag.start()
        self._listeners.start()
        # Who hears from this server believes that it can be reached.
        await shared.start()

    async def _open_database(self) -> Database:
        settings = self.settings.database
        dsn = settings.dsn
        if dsn is None:
            embedded = EmbeddedPostgres(self.settings.postgres_dir)
            self._postgres = SupervisedPostgres(self._reactor, embedded)
            await self._postgres.start()
            self._postgres.watch()
            dsn = self._postgres.dsn
        await migrate_in_thread(self._reactor, dsn)
        db = Database(
            self._reactor,
            dsn,
            pool_size=settings.pool_size,
            prepare=settings.prepared_statements,
            statement_timeout_seconds=settings.statement_timeout,
        )
        await db.open()
        return db


def run_server(
    settings: Settings,
    ready: Callable[[Homeserver], None],
    not_started: Callable[[str], None],
    on_hangup: Callable[[Callable[[], None]], None],
) -> int:
    """Run a homeserver until SIGINT or SIGTERM; a second signal ends at once. The exit status.

    It is 1 where the server did not start, could not go on, or lost something when it was stopped.
    `ready(server)` is called once it listens, or `not_started(reason)` where it cannot start.
    `on_hangup` is given what is to be called at SIGHUP.
    """
    from twisted.internet import reactor as installed

    reactor: Any = steady(installed)
    server = Homeserver(settings, reactor)
    on_hangup(lambda: reactor.callFromThread(server.reload_certificates))
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
        # Should anything hang all the same, be it a thread that nothing can stop.
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

"""The database connections of the server: a bounded pool, and one connection for the log.

`run` lends a connection in autocommit mode to a storage function; `transaction` adds BEGIN and
COMMIT. At most `pool_size` connections exist, opened when they are first needed. Callers that find
none free wait in a fair queue that is bounded in length and time; beyond either bound, and whenever
the database is unavailable, they get `Unavailable` (503), so that a database failure neither piles
up requests here nor looks like a defect.

A broken connection is dropped and replaced. While the database does not answer, one attempt to
connect is made at a time, with growing pauses.
"""

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Concatenate, ParamSpec, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import TransactionStatus
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from homeserver.concurrency.backoff import RetrySchedule
from homeserver.protocol.errors import Unavailable
from homeserver.storage.database.batch import Batch
from homeserver.storage.database.reactor_connection import ReactorConnection, connect_to
from homeserver.storage.database.workers import FENCE, FENCED, is_alive

Connection = ReactorConnection
DatabaseError = psycopg.Error
DatabaseUnavailable = psycopg.OperationalError  # the database does not answer now, but may later

POOL_SIZE = 8
MAX_WAITING = 20_000  # clients come back all at once after a restart; WAIT_SECONDS is the bound
WAIT_SECONDS = 10.0
STATEMENT_TIMEOUT_SECONDS = 60
CLOSE_SECONDS = 5.0  # for queries to end when the server stops
CUT_SECONDS = 1.0  # for their callers to handle the error
READ_ONLY = "25"  # SQLSTATE class: invalid transaction state, such as a read-only transaction
PASSING = ("53", "57P", "58")  # no disk space, no more connections, a restart, an I/O error
TOO_LARGE = "54"  # SQLSTATE class: a limit of PostgreSQL's, which a retry cannot pass
RECONNECTS = RetrySchedule((0.05, 0.1, 0.2, 0.5, 1.0, 2.0))


class NeverWritten(psycopg.DatabaseError):
    """A row exceeds what PostgreSQL can store; writing it again will not help."""


class Replaced(psycopg.DatabaseError):
    """Another process has taken the database over: this one may not use it any more."""

    def __init__(self) -> None:
        super().__init__("another process has taken the database over")


P = ParamSpec("P")
T = TypeVar("T")
log = Logger()


class Database:
    """A pool of connections to one PostgreSQL database, and the connection on which the log writes.

    `prepare=False` is for PgBouncer in transaction mode, which keeps no session: no prepared
    statements, no session settings. `worker` is the number of this process among those that may
    write (`workers.py`); without one, nothing keeps it from writing beside them.
    """

    def __init__(
        self,
        reactor: Any,
        dsn: str,
        *,
        pool_size: int = POOL_SIZE,
        prepare: bool = True,
        wait_seconds: float = WAIT_SECONDS,
        statement_timeout_seconds: float = STATEMENT_TIMEOUT_SECONDS,
        worker: int | None = None,
        application_name: str = "homeserver",
    ) -> None:
        self.runs = 0  # calls of `run` and `transaction`
        self.refusals = 0  # of them, failed with `Unavailable`
        self.connects = 0
        self.losses = 0  # connections that broke
        self._reactor = reactor
        self._dsn = _session_dsn(dsn, prepare, statement_timeout_seconds, application_name)
        self._worker = worker
        self._fence = "" if worker is None else FENCE.format(worker=worker)
        self._prepare_threshold = 5 if prepare else None
        self._pool_size = pool_size
        self._wait_seconds = wait_seconds
        self._idle: list[ReactorConnection] = []
        self._total = 0  # connections that are open or opening
        self._connecting: set[Deferred[None]] = set()
        self._waiters: deque[Deferred[ReactorConnection]] = deque()
        self._failures = 0  # failed attempts to connect since the last success
        self._pause: Any = None  # the delayed call that ends a pause between attempts
        self._writer: ReactorConnection | None = None
        self._lent: set[ReactorConnection] = set()
        self._open = False
        self._is_replaced = False
        self._drained: Deferred[None] | None = None

    @property
    def is_up(self) -> bool:
        """Whether the database answered the latest attempt to connect."""
        return self._open and self._failures == 0

    @property
    def in_use(self) -> int:
        """Connections that are lent out or opening."""
        return self._total - len(self._idle)

    @property
    def waiting(self) -> int:
        """Callers that are waiting for a connection."""
        return len(self._waiters)

    async def open(self) -> None:
        """Connect, once for the pool and once for the log; raises `psycopg.OperationalError`."""
        self._open = True
        try:
            self._writer = await self.connect()
            self._total += 1
            self._idle.append(await self.connect())
        except BaseException:
            self._total = 0
            self._close_idle()
            self._open = False
            raise

    async def close(self, patience: float = CLOSE_SECONDS) -> None:
        """Refuse new work, wait for running queries, and close all connections.

        Queries that still run after `patience` seconds lose their connection: a database that hangs
        must not keep the server from stopping.
        """
        self._open = False
        while self._waiters:
            self._refuse(self._waiters.popleft())
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        for connecting in list(self._connecting):
            connecting.cancel()
        self._close_idle()
        if self._total:
            self._drained = Deferred()
            timers = [
                self._reactor.callLater(patience, self._abort),
                self._reactor.callLater(patience + CUT_SECONDS, self._give_up_draining),
            ]
            await self._drained
            for timer in timers:
                if timer.active():
                    timer.cancel()

    async def run(
        self,
        function: Callable[Concatenate[Connection, P], Awaitable[T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """`await function(connection, *args)` with a pooled connection in autocommit mode.

        Raises `Unavailable` if no connection is available, or if it breaks during the call.
        """
        async with self.connection() as connection:
            return await function(connection, *args, **kwargs)

    async def transaction(
        self,
        function: Callable[Concatenate[Connection, P], Awaitable[T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """`run` in a transaction, which is rolled back if `function` raises or is cancelled."""
        async with self.connection() as connection, connection.transaction():
            return await function(connection, *args, **kwargs)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Lend a connection, in autocommit mode, for the length of the block."""
        self.runs += 1
        connection = await self._take()
        self._lent.add(connection)
        try:
            yield connection
        except psycopg.Error as error:
            if (error.sqlstate or "").startswith(READ_ONLY):
                connection.close_now()
            if connection.closed or (error.sqlstate or "").startswith(PASSING):
                raise Unavailable("The database is unavailable; try again in a moment") from error
            raise
        finally:
            self._lent.discard(connection)
            await self._give_back(connection)

    async def write_batch(self, batch: Batch) -> None:
        """Write a batch of the log on its own connection.

        Raises `psycopg.OperationalError` if a retry makes sense: the connection broke (the next
        call reconnects), the disk is full, or the database is read-only for now. Raises another
        `psycopg.Error` if the batch can never be written, and `Replaced` if nothing can.
        """
        writer = self._writer
        if writer is None or writer.closed:
            writer = self._writer = await self.connect()
        try:
            await batch.write(writer, self._fence)
        except psycopg.Error as error:
            if error.sqlstate == FENCED:
                raise self._replaced() from None
            if (error.sqlstate or "").startswith(READ_ONLY):
                # Another machine may have become the primary.
                writer.close_now()
            elif (error.sqlstate or "").startswith(TOO_LARGE):
                raise NeverWritten(str(error)) from error
            elif not isinstance(error, psycopg.InterfaceError):
                raise
            raise psycopg.OperationalError(str(error)) from error
        finally:
            if writer.closed:
                writer.close_now()

    async def connect(self) -> ReactorConnection:
        """Open a connection that is not of the pool; its caller closes it.

        Raises `psycopg.OperationalError`, or `Replaced`.
        """
        if self._is_replaced:
            raise Replaced
        if not self._open:
            raise psycopg.OperationalError("the database is closed")
        try:
            connection = await connect_to(
                self._reactor, self._dsn, prepare_threshold=self._prepare_threshold
            )
        except BaseException:
            self._failures += 1
            raise
        self._failures = 0
        self.connects += 1
        if self._worker is not None and not await is_alive(connection, self._worker):
            connection.close_now()
            raise self._replaced()
        connection.on_lost = self._lost_while_idle
        return connection

    def _replaced(self) -> Replaced:
        """Refuse all work from now on, at once: there is nothing left to wait for."""
        self._open, self._is_replaced = False, True
        while self._waiters:
            self._refuse(self._waiters.popleft())
        return Replaced()

    async def _take(self) -> ReactorConnection:
        while self._idle and not self._waiters and self._open:
            connection = self._idle.pop()
            if not connection.closed:
                return connection
            self._forget(connection)
        if not self._open or len(self._waiters) >= MAX_WAITING:
            self.refusals += 1
            raise Unavailable("The database is busy or unavailable; try again in a moment")
        waiter: Deferred[ReactorConnection] = Deferred(self._waiters.remove)
        self._waiters.append(waiter)
        timer = self._reactor.callLater(self._wait_seconds, self._give_up, waiter)
        try:
            self._connect_for_waiters()
            return await waiter
        finally:
            if timer.active():
                timer.cancel()

    def _give_up(self, waiter: Deferred[ReactorConnection]) -> None:
        self._waiters.remove(waiter)
        self._refuse(waiter)

    def _refuse(self, waiter: Deferred[ReactorConnection]) -> None:
        self.refusals += 1
        waiter.errback(Unavailable("The database is busy or unavailable; try again in a moment"))

    async def _give_back(self, connection: ReactorConnection) -> None:
        if not connection.closed and (
            connection.pgconn.transaction_status != TransactionStatus.IDLE
        ):
            try:
                await connection.rollback()
            except BaseException:
                connection.close_now()
                self._forget(connection)
                raise
        self._lend_or_keep(connection)

    def _lend_or_keep(self, connection: ReactorConnection) -> None:
        if connection.closed or not self._open:
            self._forget(connection)
        elif self._waiters:
            self._waiters.popleft().callback(connection)
        else:
            self._idle.append(connection)

    def _forget(self, connection: ReactorConnection) -> None:
        """Remove a connection from the pool, and open another one if a caller waits."""
        self.losses += connection.closed
        connection.close_now()
        self._count_out()
        self._connect_for_waiters()

    def _count_out(self) -> None:
        self._total -= 1
        if self._drained is not None and self._total == 0:
            drained, self._drained = self._drained, None
            drained.callback(None)

    def _abort(self) -> None:
        """Close the connections that are lent out, so that their callers get an error."""
        log.warn("{count} queries did not end; closing their connections", count=len(self._lent))
        for connection in tuple(self._lent):
            connection.close_now()

    def _give_up_draining(self) -> None:
        if self._drained is not None:
            log.error("{count} database connections were not returned", count=self._total)
            drained, self._drained = self._drained, None
            drained.callback(None)

    def _lost_while_idle(self) -> None:
        for connection in [idle for idle in self._idle if idle.closed]:
            self._idle.remove(connection)
            self._forget(connection)

    def _connect_for_waiters(self) -> None:
        """Open a connection for each waiting caller, and at least one, to know whether the database
        is up.

        While the database seems unavailable there is one attempt at a time.
        """
        if not self._open or self._pause is not None or (self._failures and self._connecting):
            return
        wanted = max(len(self._waiters) - len(self._connecting), 0 if self._total else 1)
        if self._failures:
            wanted = min(wanted, 1)
        for _ in range(min(wanted, self._pool_size - self._total)):
            self._total += 1
            self._start_connecting()

    def _start_connecting(self) -> None:
        connecting = Deferred.fromCoroutine(self._connect_for_a_waiter())
        self._connecting.add(connecting)
        connecting.addBoth(lambda _: self._connecting.discard(connecting))

    async def _connect_for_a_waiter(self) -> None:
        try:
            connection = await self.connect()
        except Exception as error:
            if self._open:  # otherwise `close` interrupted it
                log.warn("cannot connect to the database: {error}", error=error)
            if self._open and self._pause is None:
                delay = RECONNECTS.pause(self._failures)
                self._pause = self._reactor.callLater(delay, self._end_pause)
            self._count_out()
            return
        self._lend_or_keep(connection)

    def _end_pause(self) -> None:
        self._pause = None
        self._connect_for_waiters()

    def _close_idle(self) -> None:
        idle, self._idle = self._idle, []
        for connection in idle:
            self._forget(connection)
        if self._writer is not None:
            self._writer.close_now()
            self._writer = None


def _session_dsn(
    dsn: str, prepare: bool, statement_timeout_seconds: float, application_name: str
) -> str:
    """Add this server's session settings to a connection string, unless it has them."""
    given = conninfo_to_dict(dsn)
    # A process that takes the database over closes all connections with this name.
    given["application_name"] = application_name
    session_settings: dict[str, Any] = {
        "connect_timeout": 10,
        # Notice within half a minute that a machine vanished without closing its connections.
        "keepalives_idle": 15,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 30_000,
    }
    if prepare:
        timeout_ms = int(statement_timeout_seconds * 1000)
        given["options"] = f"-c statement_timeout={timeout_ms} {given.get('options', '')}".strip()
    return make_conninfo("", **(session_settings | given))

"""PostgreSQL connections that wait on the Twisted reactor: no threads, no second event loop.

psycopg implements its protocol as generators that only wait for "readable" and "writable".
`ReactorConnection` makes the reactor wait for these; all else, cursors, transactions, adaptation,
prepared statements, is psycopg's own `AsyncConnection`, awaited by ordinary coroutines that Twisted
drives (`Deferred.fromCoroutine`, trial's `async def test_…`).

The socket is watched through a duplicate of its file descriptor. libpq closes its own descriptor on
an error, and the system may reuse the number at once; with the duplicate, the reactor never watches
a descriptor of something else.

Cancelling the Deferred of a coroutine that waits for a query asks PostgreSQL to cancel the query,
and the coroutine ends when that is done; if it takes too long, the connection is closed instead.
"""

import os
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import psycopg
from psycopg import generators
from psycopg._preparing import Prepare
from psycopg.conninfo import (
    conninfo_attempts,
    conninfo_to_dict,
    make_conninfo,
    timeout_from_conninfo,
)
from psycopg.pq import ExecStatus, Format, TransactionStatus
from psycopg.pq.abc import PGconn, PGresult
from psycopg.rows import TupleRow
from psycopg.waiting import Ready, Wait
from twisted.internet.defer import CancelledError, Deferred, DeferredLock
from twisted.internet.interfaces import IDelayedCall, IReadWriteDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from homeserver.concurrency.thread_pools import run_in_own_thread
from homeserver.storage.database.list_dumper import UniformListDumper

CANCEL_SECONDS = 5.0  # for PostgreSQL to handle a cancel request
T = TypeVar("T")
log = Logger()


@dataclass(frozen=True, slots=True, eq=False)
class BinaryStatement:
    """A statement with parameters `$1` and so on, which are sent in PostgreSQL's binary form.

    `types` are the OIDs of the parameters.
    """

    query: bytes
    types: tuple[int, ...]
    formats: tuple[Format, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "formats", (Format.BINARY,) * len(self.types))


@implementer(IReadWriteDescriptor)
class SocketWatch:
    """A reader and writer of the reactor for one socket, for which at most one coroutine waits.

    The socket stays registered for reading between two waits, as nearly every query waits to read.
    When data arrive while no coroutine waits, `on_unexpected_data` is called; unless it returns
    true for having read them, the socket leaves the reactor until the next wait, so that it cannot
    keep the reactor busy.
    """

    def __init__(self, reactor: Any, fd: int) -> None:
        self.on_unexpected_data: Callable[[], bool] | None = None
        self._reactor = reactor
        self._fd = os.dup(fd)
        self._reading = False
        self._wanted = 0
        self._waiter: Deferred[int] | None = None

    async def ready(self, wanted: int, timeout: float | None = None) -> int:
        """Wait until the socket is in one of the wanted states (bits of `Wait`), and return those
        it is in.

        Returns 0 after `timeout` seconds, and raises `OperationalError` if the watch is closed.
        """
        if self._fd < 0:
            raise psycopg.OperationalError("the connection is closed")
        self._wanted = wanted
        waiter: Deferred[int] = Deferred()
        self._waiter = waiter
        if wanted & Wait.R:
            self.read_on()
        if wanted & Wait.W:
            self._reactor.addWriter(self)
        timer: IDelayedCall | None = None
        if timeout is not None:
            timer = self._reactor.callLater(max(timeout, 0), self._fire, 0)
        try:
            return await waiter
        finally:
            self._waiter = None
            if timer is not None and timer.active():
                timer.cancel()
            if wanted & Wait.W and self._fd >= 0:
                self._reactor.removeWriter(self)

    def read_on(self) -> None:
        """Notice data even while no coroutine waits."""
        if not self._reading:
            self._reading = True
            self._reactor.addReader(self)

    def close(self) -> None:
        """Leave the reactor and close; a waiting coroutine gets `OperationalError`."""
        if self._fd < 0:
            return
        self._reactor.removeReader(self)
        self._reactor.removeWriter(self)
        os.close(self._fd)
        self._fd, self._reading = -1, False
        if self._waiter is not None:
            waiter, self._waiter = self._waiter, None
            waiter.errback(psycopg.OperationalError("the connection was closed"))

    def fileno(self) -> int:
        return self._fd

    def doRead(self) -> None:
        if self._waiter is not None and self._wanted & Wait.R:
            self._fire(Ready.R)
        elif self._reading and not self._take_unexpected_data():
            self._reading = False
            self._reactor.removeReader(self)

    def doWrite(self) -> None:
        if self._waiter is not None and self._wanted & Wait.W:
            self._fire(Ready.W)

    def connectionLost(self, reason: Failure) -> None:
        # The reactor saw a hang-up and dropped the socket. libpq learns the reason by reading.
        self._reading = False
        if self._waiter is not None:
            self._fire(self._wanted)
        else:
            self._take_unexpected_data()

    def logPrefix(self) -> str:
        return "postgresql"

    def _take_unexpected_data(self) -> bool:
        return self.on_unexpected_data is not None and self.on_unexpected_data()

    def _fire(self, ready: int) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.callback(ready)


class ReactorConnection(psycopg.AsyncConnection[TupleRow]):
    """A psycopg connection driven by the reactor; made by `connect_to`.

    `on_lost` is called, once, when PostgreSQL closes the connection while it is idle.
    """

    def __init__(self, reactor: Any, pgconn: PGconn) -> None:
        super().__init__(pgconn)
        # psycopg's lock is asyncio's, which cannot be awaited here.
        self.lock = DeferredLock()  # type: ignore[assignment]
        self.on_lost: Callable[[], None] | None = None
        self._reactor = reactor
        self._watch = SocketWatch(reactor, pgconn.socket)
        self._watch.on_unexpected_data = self._take_unexpected_data
        self._watch.read_on()

    async def wait(
        self, gen: Generator[Any, Any, T], interval: float = 0, timeout: float | None = None
    ) -> T:
        """Drive one of psycopg's generators to its end, waiting on the reactor."""
        try:
            return await self._drive(gen, timeout)
        except CancelledError:
            if self.pgconn.transaction_status == TransactionStatus.ACTIVE:
                await self._stop_query(gen)
            raise

    async def execute_binary(
        self, statement: BinaryStatement, parameters: Sequence[bytes | memoryview | None]
    ) -> None:
        """Execute a statement for its effect, prepared unless that is forbidden.

        As a cursor's `execute`, without the adaptation of values, which costs more than all else
        that this process does for a small statement. Nobody else may use the connection meanwhile.
        """
        await self.wait(self._execute_binary(statement, parameters))

    async def cancel_safe(self, *, timeout: float = CANCEL_SECONDS) -> None:
        """Ask PostgreSQL, over a separate connection, to cancel the running query."""
        if self._should_cancel():
            await drive_connecting(self._reactor, self._cancel_gen(), timeout)

    async def close(self) -> None:
        """Close the connection; a query that still waits on it fails with `OperationalError`."""
        self.close_now()

    def close_now(self) -> None:
        """`close`, for callers that are not coroutines."""
        self._closed = True
        # The waiting coroutine runs next, and must find it closed.
        self.pgconn.finish()
        self._watch.close()

    async def _drive(self, gen: Generator[Any, Any, T], timeout: float | None) -> T:
        deadline = None if timeout is None else self._reactor.seconds() + timeout
        try:
            wanted = next(gen)
            watch = self._watch
            while True:
                if deadline is None:
                    wanted = gen.send(await watch.ready(wanted))
                    continue
                ready = await watch.ready(wanted, deadline - self._reactor.seconds())
                wanted = gen.send(ready)
                if not ready:
                    raise psycopg.errors._WaitTimeout("wait timeout expired")
        except StopIteration as end:
            result: T = end.value
            return result

    def _execute_binary(
        self, statement: BinaryStatement, parameters: Sequence[bytes | memoryview | None]
    ) -> Generator[Any, Any, None]:
        pgconn, prepared = self.pgconn, self._prepared
        # psycopg's own registry: it forgets all names when it has PostgreSQL deallocate them.
        how, name = prepared.get(statement, True)  # type: ignore[arg-type]
        if how is Prepare.NO:
            pgconn.send_query_params(
                statement.query, parameters, statement.types, statement.formats
            )
        else:
            if how is Prepare.SHOULD:
                pgconn.send_prepare(name, statement.query, statement.types)
                self._check((yield from generators.execute(pgconn)))
            pgconn.send_query_prepared(name, parameters, statement.formats)
        key = prepared.maybe_add_to_cache(statement, how, name)  # type: ignore[arg-type]
        results = yield from generators.execute(pgconn)
        if key is not None:
            prepared.validate(key, how, name, results)
        self._check(results)
        yield from prepared.maintain_gen(self)

    def _check(self, results: Sequence[PGresult]) -> None:
        """Raise the error that PostgreSQL reports, be it that of the commit."""
        for result in results:
            if result.status not in (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK):
                raise psycopg.errors.error_from_result(result, encoding=self.info.encoding)
        if not results:
            raise psycopg.InternalError("PostgreSQL gave no result")

    def _take_unexpected_data(self) -> bool:
        """Read what PostgreSQL sends unasked (a notice or an error), and detect a hang-up."""
        if self._closed or self.pgconn.transaction_status == TransactionStatus.ACTIVE:
            return False  # the response to a query that is being cancelled belongs to its generator
        try:
            self.pgconn.consume_input()
            self.pgconn.is_busy()  # takes notices out of libpq's buffer
        except psycopg.OperationalError:
            self.close_now()
            if self.on_lost is not None:
                self.on_lost()
            return False
        return True

    async def _stop_query(self, gen: Generator[Any, Any, Any]) -> None:
        """Cancel the running query in PostgreSQL and read its end, or close the connection."""
        try:
            await self.cancel_safe()
            await self._drive(gen, CANCEL_SECONDS)
        except psycopg.errors.QueryCanceled:
            pass
        except (psycopg.Error, CancelledError) as error:
            log.warn("a query could not be cancelled, closing its connection: {e}", e=error)
            self.close_now()


async def connect_to(
    reactor: Any, dsn: str, *, prepare_threshold: int | None = 5
) -> ReactorConnection:
    """Connect to the server that a connection string (or URL) names, in autocommit mode.

    Tries every host and address in turn, each for `connect_timeout` seconds. Pass
    `prepare_threshold=None` if prepared statements cannot be used, as behind PgBouncer. Raises
    `psycopg.OperationalError`.
    """
    parameters = conninfo_to_dict(dsn)
    if str(parameters.get("host", "/")).startswith("/"):
        attempts = conninfo_attempts(parameters)
    else:
        # Looking up a host name blocks.
        attempts = await run_in_own_thread(reactor, "database host", conninfo_attempts, parameters)
    timeout = timeout_from_conninfo(parameters)
    failures: list[psycopg.Error] = []
    for attempt in attempts:
        gen = generators.connect(make_conninfo("", **attempt))
        try:
            pgconn = await drive_connecting(reactor, gen, timeout)
        except psycopg.Error as error:
            failures.append(error)
            continue
        connection = ReactorConnection(reactor, pgconn)
        connection._autocommit = True
        connection.adapters.register_dumper(list, UniformListDumper)
        connection.prepare_threshold = prepare_threshold
        return connection
    raise psycopg.OperationalError("; ".join(str(error) for error in failures)) from failures[-1]


async def drive_connecting(
    reactor: Any, gen: Generator[tuple[int, int], int, T], timeout: float
) -> T:
    """Drive a generator that names its socket at each step, as it may change sockets.

    Raises `psycopg.errors.ConnectionTimeout` after `timeout` seconds.
    """
    deadline = reactor.seconds() + timeout
    try:
        fd, wanted = next(gen)
        while True:
            watch = SocketWatch(reactor, fd)
            try:
                ready = await watch.ready(wanted, deadline - reactor.seconds())
            finally:
                watch.close()
            if not ready:
                raise psycopg.errors.ConnectionTimeout("the database does not answer")
            fd, wanted = gen.send(ready)
    except StopIteration as end:
        result: T = end.value
        return result
    finally:
        gen.close()  # and with it an unfinished connection

"""Connections that wait on the reactor: queries, cancellation, and clean-up."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.internet.task import deferLater
from twisted.protocols.portforward import ProxyFactory
from twisted.trial.unittest import TestCase

from homeserver.storage.database.reactor_connection import ReactorConnection, connect_to
from tests.support.postgres import drop_database, fresh_database


def open_descriptors() -> set[str]:
    """The open files of this process, by name."""
    entries = Path("/proc/self/fd").iterdir()
    return {str(entry.readlink()) for entry in entries if entry.is_symlink()}


async def pause(seconds: float) -> None:
    await deferLater(reactor, seconds)


async def answer(connection: ReactorConnection, query: str, *values: Any) -> Any:
    cursor = await connection.execute(query.encode(), values or None)
    row = await cursor.fetchone()
    return row and row[0]


class SilentServer(ServerFactory):
    """A server that accepts connections and never sends anything."""

    protocol = Protocol


class ConnectionTestCase(TestCase):
    def setUp(self) -> None:
        self.dsn = fresh_database()
        self.addCleanup(drop_database, self.dsn)

    async def connect(self, dsn: str = "", **options: Any) -> ReactorConnection:
        connection = await connect_to(reactor, dsn or self.dsn, **options)
        self.addCleanup(connection.close_now)
        return connection

    async def wait_until_runs(self, observer: ReactorConnection, query: str) -> None:
        """Wait until PostgreSQL is executing a query with this text."""
        while not await answer(
            observer,
            "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = %s",
            query,
        ):
            await pause(0.01)


class QueryTests(ConnectionTestCase):
    async def test_query_answers(self) -> None:
        """The plainest use: one statement, one row."""
        connection = await self.connect()

        total = await answer(connection, "SELECT %s::int + 1", 41)

        self.assertEqual(total, 42)

    async def test_reactor_continues_while_a_query_runs(self) -> None:
        """A slow query of one user does not stop the server for the others."""
        connection = await self.connect()
        query = Deferred.fromCoroutine(answer(connection, "SELECT pg_sleep(0.2)"))

        begun = time.monotonic()
        await pause(0.01)

        self.assertLess(time.monotonic() - begun, 0.15)
        await query

    async def test_two_coroutines_share_a_connection_one_after_the_other(self) -> None:
        """Two concurrent uses of a connection both succeed, one after the other."""
        connection = await self.connect()

        both = [
            Deferred.fromCoroutine(answer(connection, "SELECT pg_sleep(0.02)::text || %s", text))
            for text in ("a", "b")
        ]

        self.assertEqual(await gatherResults(both), ["a", "b"])

    async def test_values_larger_than_the_socket_buffers_pass_both_ways(self) -> None:
        """A big event or a long list of them needs many rounds of writing and reading."""
        connection = await self.connect()
        value = os.urandom(4_000_000)

        echo = await answer(connection, "SELECT %b::bytea", value)

        self.assertEqual(echo, value)

    async def test_pipeline_and_copy_work(self) -> None:
        """Bulk loading uses them."""
        connection = await self.connect()

        async with connection.pipeline():
            await connection.execute("CREATE TEMPORARY TABLE bulk (n int)")
            await connection.execute("INSERT INTO bulk VALUES (1)")
        async with connection.cursor() as cursor, cursor.copy("COPY bulk FROM STDIN") as copy:
            for number in range(1000):
                await copy.write_row((number,))

        self.assertEqual(await answer(connection, "SELECT count(*) FROM bulk"), 1001)

    async def test_errors_of_the_server_arrive_as_they_are(self) -> None:
        """A failed statement names its SQLSTATE, and the connection can be used again."""
        connection = await self.connect()

        with self.assertRaises(psycopg.errors.DivisionByZero):
            await answer(connection, "SELECT 1/0")

        self.assertEqual(await answer(connection, "SELECT 1"), 1)

    async def test_repeated_statements_are_prepared_unless_forbidden(self) -> None:
        """Preparing saves parsing; behind PgBouncer it must not happen."""
        usual = await self.connect()
        pooled = await self.connect(prepare_threshold=None)

        for connection in (usual, pooled):
            for _ in range(10):
                await answer(connection, "SELECT 1 WHERE %s", True)

        prepared = "SELECT count(*) > 0 FROM pg_prepared_statements"
        self.assertTrue(await answer(usual, prepared))
        self.assertFalse(await answer(pooled, prepared))


class CancellationTests(ConnectionTestCase):
    async def test_cancelled_query_is_stopped_in_the_server(self) -> None:
        """A client that disconnected must not keep the database busy."""
        observer, connection = await self.connect(), await self.connect()
        query = Deferred.fromCoroutine(answer(connection, "SELECT pg_sleep(60)"))
        await self.wait_until_runs(observer, "SELECT pg_sleep(60)")

        query.cancel()
        await self.assertFailure(query, CancelledError)

        self.assertEqual(await answer(connection, "SELECT 1"), 1)
        self.assertFalse(
            await answer(
                observer,
                "SELECT count(*) FROM pg_stat_activity WHERE state = 'active'"
                " AND query = 'SELECT pg_sleep(60)'",
            )
        )

    async def test_transaction_is_rolled_back_when_cancelled(self) -> None:
        """Half a change is no change."""
        connection = await self.connect()
        await connection.execute("CREATE TEMPORARY TABLE t (n int)")

        async def change() -> None:
            async with connection.transaction():
                await connection.execute("INSERT INTO t VALUES (1)")
                await connection.execute("SELECT pg_sleep(60)")

        changing = Deferred.fromCoroutine(change())
        await pause(0.1)
        changing.cancel()
        await self.assertFailure(changing, CancelledError)

        self.assertEqual(await answer(connection, "SELECT count(*) FROM t"), 0)

    async def test_query_cancelled_twice_loses_its_connection(self) -> None:
        """If PostgreSQL does not cancel the query in time, the connection is closed at once."""
        connection = await self.connect()
        query = Deferred.fromCoroutine(answer(connection, "SELECT pg_sleep(60)"))
        await pause(0.05)

        query.cancel()
        query.cancel()
        await self.assertFailure(query, CancelledError)

        self.assertTrue(connection.closed)

    async def test_connecting_can_be_cancelled(self) -> None:
        """Shutting down does not wait for a server that never answers."""
        port = reactor.listenTCP(0, SilentServer(), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        await pause(0)  # the reactor runs, with all that it opens for itself
        before = open_descriptors()

        connecting = Deferred.fromCoroutine(
            connect_to(reactor, f"host=127.0.0.1 port={port.getHost().port}")
        )
        await pause(0.05)
        connecting.cancel()
        await self.assertFailure(connecting, CancelledError)
        await pause(0.05)

        self.assertEqual(open_descriptors(), before)


class ConnectingTests(ConnectionTestCase):
    async def test_server_that_never_answers_is_given_up(self) -> None:
        """A dead machine is an error after `connect_timeout`, not a hang."""
        port = reactor.listenTCP(0, SilentServer(), interface="127.0.0.1")
        self.addCleanup(port.stopListening)

        with self.assertRaises(psycopg.OperationalError):
            await self.connect(f"host=127.0.0.1 port={port.getHost().port} connect_timeout=2")

    async def test_refused_connection_names_the_reason(self) -> None:
        """The operator finds the reason in the log."""
        port = reactor.listenTCP(0, SilentServer(), interface="127.0.0.1")
        number = port.getHost().port
        await port.stopListening()

        with self.assertRaisesRegex(psycopg.OperationalError, "refused"):
            await self.connect(f"host=127.0.0.1 port={number}")

    async def test_host_names_are_looked_up_and_every_host_is_tried(self) -> None:
        """A DSN may name several servers; the first that answers is taken."""
        parameters = conninfo_to_dict(self.dsn)
        socket = Path(str(parameters.pop("host")), ".s.PGSQL.5432")
        proxy = reactor.listenTCP(0, UnixProxyFactory(str(socket)), interface="127.0.0.1")
        self.addCleanup(proxy.stopListening)
        number = proxy.getHost().port

        connection = await self.connect(
            make_conninfo("", **parameters, host="no-such-host.invalid,localhost", port=number)
        )

        self.assertEqual(await answer(connection, "SELECT 1"), 1)

    async def test_unknown_host_is_an_operational_error(self) -> None:
        """A wrong host name can be distinguished from a defect."""
        with self.assertRaises(psycopg.OperationalError):
            await self.connect("host=no-such-host.invalid")


class UnixProxyFactory(ProxyFactory):
    """Forwards TCP connections to a unix socket, so that a test can connect by host name."""

    def __init__(self, path: str) -> None:
        super().__init__(path, 0)
        self.protocol = type(
            "UnixProxy",
            (self.protocol,),
            {"connectionMade": _connect_to_unix_socket},
        )


def _connect_to_unix_socket(proxy: Any) -> None:
    proxy.transport.pauseProducing()
    client = proxy.clientProtocolFactory()
    client.setServer(proxy)
    reactor.connectUNIX(proxy.factory.host, client)


class LossTests(ConnectionTestCase):
    async def terminate(self, connection: ReactorConnection) -> None:
        """Make PostgreSQL end a connection, as its restart does."""
        other = await self.connect()
        await answer(other, "SELECT pg_terminate_backend(%s)", connection.info.backend_pid)

    async def test_query_fails_when_the_server_hangs_up(self) -> None:
        """No query waits forever for a database that is gone."""
        connection = await self.connect()
        query = Deferred.fromCoroutine(answer(connection, "SELECT pg_sleep(60)"))
        await pause(0.05)

        await self.terminate(connection)

        await self.assertFailure(query, psycopg.OperationalError)

    async def test_loss_of_an_idle_connection_is_noticed_and_costs_nothing(self) -> None:
        """The pool must notice it, and the reactor must not spin on the dead socket."""
        connection = await self.connect()
        await answer(connection, "SELECT 1")
        lost: list[bool] = []
        connection.on_lost = lambda: lost.append(True)

        await self.terminate(connection)
        await pause(0.1)
        used = time.process_time()
        await pause(0.2)

        self.assertEqual(lost, [True])
        self.assertTrue(connection.closed)
        self.assertLess(time.process_time() - used, 0.05)

    async def test_killed_backend_is_noticed(self) -> None:
        """A backend that dies without a message closes its socket all the same."""
        connection = await self.connect()
        await answer(connection, "SELECT 1")
        lost: Deferred[None] = Deferred()
        connection.on_lost = lambda: lost.callback(None)

        os.kill(connection.info.backend_pid, signal.SIGTERM)

        await lost.addTimeout(5, reactor)

    async def test_closing_a_connection_ends_the_query_that_waits_on_it(self) -> None:
        """A shutdown does not hang on a slow query."""
        connection = await self.connect()
        query = Deferred.fromCoroutine(answer(connection, "SELECT pg_sleep(1)"))
        await pause(0.05)

        await connection.close()

        await self.assertFailure(query, psycopg.OperationalError)

    async def test_connections_leave_no_descriptor_behind(self) -> None:
        """A server that runs for months opens and loses many connections."""
        await pause(0)  # the reactor runs, with all that it opens for itself
        before = open_descriptors()

        for closing in ("close", "lose", "close unused"):
            connection = await connect_to(reactor, self.dsn)
            if closing != "close unused":
                await answer(connection, "SELECT 1")
            if closing == "lose":
                with self.assertRaises(psycopg.OperationalError):
                    await answer(connection, "SELECT pg_terminate_backend(pg_backend_pid())")
            await connection.close()

        self.assertEqual(open_descriptors(), before)

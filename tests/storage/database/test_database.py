"""The pool: bounded, fair, and clear about an unavailable database."""

import os
import signal
from typing import Any

import psycopg
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from homeserver.protocol.errors import Unavailable
from homeserver.storage.database.batch import Batch, BatchStatement
from homeserver.storage.database.database import Connection, Database
from tests.support.postgres import DatabaseTestCase, drop_database, fresh_database

NOTE = BatchStatement(
    "note",
    "INSERT INTO notes SELECT * FROM unnest(%s::int4[], %s::text[]) ON CONFLICT DO NOTHING",
    ("int4", "text"),
)


class SilentServer(ServerFactory):
    """A server that accepts connections and never sends anything."""

    protocol = Protocol


async def answer(db: Connection, query: str, *values: Any) -> Any:
    cursor = await db.execute(query.encode(), values or None)
    row = await cursor.fetchone()
    return row and row[0]


async def execute(db: Connection, query: str) -> None:
    await db.execute(query.encode())


async def pause(seconds: float) -> None:
    await deferLater(reactor, seconds)


class RunTests(DatabaseTestCase):
    async def test_run_gives_what_the_function_gives(self) -> None:
        """Storage functions are called by name, with their arguments."""
        self.assertEqual(await self.db.run(answer, "SELECT %s::int", 7), 7)

    async def test_transaction_is_all_or_nothing(self) -> None:
        """A failed change leaves no trace."""
        await self.db.run(execute, "CREATE TABLE t (n int)")

        async def fail(db: Connection) -> None:
            await db.execute("INSERT INTO t VALUES (1)")
            raise LookupError

        with self.assertRaises(LookupError):
            await self.db.transaction(fail)
        await self.db.transaction(execute, "INSERT INTO t VALUES (2)")

        self.assertEqual(await self.db.run(answer, "SELECT sum(n) FROM t"), 2)

    async def test_transaction_left_open_does_not_reach_the_next_caller(self) -> None:
        """Each caller starts in autocommit mode, whatever the last one did."""
        backend = await self.db.run(answer, "SELECT pg_backend_pid()")
        await self.db.run(execute, "BEGIN")

        again, idle = await gatherResults(
            Deferred.fromCoroutine(self.db.run(answer, query))
            for query in ("SELECT pg_backend_pid()", "SELECT now() = statement_timestamp()")
        )

        self.assertEqual(again, backend)
        self.assertTrue(idle)

    async def test_slow_statement_is_stopped(self) -> None:
        """One bad query cannot occupy a connection permanently."""
        db = Database(reactor, self.dsn, pool_size=1, statement_timeout_seconds=0.05)
        await db.open()
        self.addCleanup(lambda: Deferred.fromCoroutine(db.close()))

        with self.assertRaises(psycopg.errors.QueryCanceled):
            await db.run(execute, "SELECT pg_sleep(10)")

    async def test_cancelled_call_gives_its_connection_back(self) -> None:
        """Clients that disconnect do not use up the pool."""
        for _ in range(6):
            call = Deferred.fromCoroutine(self.db.run(execute, "SELECT pg_sleep(10)"))
            await pause(0.02)
            call.cancel()
            await self.assertFailure(call, CancelledError)

        self.assertEqual(self.db.in_use, 0)
        self.assertEqual(await self.db.run(answer, "SELECT 1"), 1)


class QueueTests(DatabaseTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        self.small = Database(reactor, self.dsn, pool_size=1, wait_seconds=0.2)
        await self.small.open()

    async def clean_up(self) -> None:
        await self.small.close()
        await super().clean_up()

    async def test_callers_are_served_in_the_order_they_came(self) -> None:
        """No caller starves behind later requests."""
        served: list[int] = []

        async def note(db: Connection, number: int) -> None:
            await db.execute("SELECT 1")
            served.append(number)

        await gatherResults(
            [Deferred.fromCoroutine(self.small.run(note, number)) for number in range(20)]
        )

        self.assertEqual(served, list(range(20)))

    async def test_waiting_ends_in_a_refusal(self) -> None:
        """A client soon gets an error that it can retry, instead of waiting without end."""
        slow = Deferred.fromCoroutine(self.small.run(execute, "SELECT pg_sleep(0.5)"))
        await pause(0.02)

        with self.assertRaises(Unavailable):
            await self.small.run(answer, "SELECT 1")

        self.assertEqual(self.small.waiting, 0)
        await slow

    async def test_cancelled_caller_leaves_the_queue(self) -> None:
        """The place of a cancelled caller in the queue is not served."""
        slow = Deferred.fromCoroutine(self.small.run(execute, "SELECT pg_sleep(0.1)"))
        await pause(0.02)
        waiting = Deferred.fromCoroutine(self.small.run(answer, "SELECT 1"))

        waiting.cancel()
        await self.assertFailure(waiting, CancelledError)

        self.assertEqual(self.small.waiting, 0)
        await slow
        self.assertEqual(await self.small.run(answer, "SELECT 2"), 2)

    async def test_pool_never_grows_beyond_its_size(self) -> None:
        """The database's own limit on connections is shared with other processes."""
        await gatherResults(
            [Deferred.fromCoroutine(self.db.run(answer, "SELECT 1")) for _ in range(50)]
        )

        self.assertLessEqual(self.db.connects, 5)  # four of the pool, one of the log

    async def test_closing_waits_for_what_runs(self) -> None:
        """A shutdown does not interrupt a change in progress."""
        await self.db.run(execute, "CREATE TABLE t (n int)")
        running = Deferred.fromCoroutine(
            self.small.run(execute, "INSERT INTO t SELECT 1 FROM pg_sleep(0.1)")
        )
        await pause(0.02)

        await self.small.close()
        await running

        self.assertEqual(await self.db.run(answer, "SELECT count(*) FROM t"), 1)
        with self.assertRaises(Unavailable):
            await self.small.run(answer, "SELECT 1")


class LossTests(DatabaseTestCase):
    async def test_broken_connection_is_a_refusal_and_is_replaced(self) -> None:
        """A restart of the database costs the requests it meets, and none after it."""
        query = Deferred.fromCoroutine(self.db.run(execute, "SELECT pg_sleep(10)"))
        await pause(0.05)

        os.kill(
            await self.db.run(
                answer,
                "SELECT pid FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(10)'"
                " AND datname = current_database()",
            ),
            signal.SIGTERM,
        )
        await self.assertFailure(query, Unavailable)

        self.assertEqual(await self.db.run(answer, "SELECT 1"), 1)
        self.assertEqual(self.db.losses, 1)

    async def test_connections_lost_while_idle_are_never_lent(self) -> None:
        """After a restart of the database the first request succeeds already."""
        pids = await self.db.run(_backends)
        await self.db.run(answer, "SELECT 1")

        for pid in pids:
            os.kill(pid, signal.SIGTERM)
        await pause(0.1)

        self.assertEqual(await self.db.run(answer, "SELECT 1"), 1)

    async def test_unavailable_database_is_a_refusal_until_it_is_back(self) -> None:
        """/health reports it, requests get 503, and no manual restart is needed."""
        name = await self.db.run(answer, "SELECT current_database()")
        db = Database(reactor, self.dsn, pool_size=2, wait_seconds=0.3)
        await db.open()
        self.addCleanup(lambda: Deferred.fromCoroutine(db.close()))

        await self._forbid_connections(name)
        with self.assertRaises(Unavailable):
            await db.run(answer, "SELECT 1")
        away = db.is_up
        await self._allow_connections(name)

        self.assertFalse(away)
        for _ in range(20):
            try:
                self.assertEqual(await db.run(answer, "SELECT 1"), 1)
                break
            except Unavailable:
                await pause(0.1)
        self.assertTrue(db.is_up)

    async def test_lost_connection_is_noticed_while_idle(self) -> None:
        """/health of an idle server reports the present state of the database."""
        name = await self.db.run(answer, "SELECT current_database()")
        await self.db.run(answer, "SELECT 1")

        await self._forbid_connections(name)
        away = self.db.is_up
        await self._allow_connections(name)
        await pause(0.5)

        self.assertEqual((away, self.db.is_up), (False, True))

    async def test_closing_does_not_wait_for_a_connection_to_be_made(self) -> None:
        """A shutdown is quick even if the database hangs."""
        port = reactor.listenTCP(0, SilentServer(), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        db = Database(reactor, self.dsn, pool_size=2)
        await db.open()
        slow = Deferred.fromCoroutine(db.run(execute, "SELECT pg_sleep(0.1)"))
        db._dsn = f"host=127.0.0.1 port={port.getHost().port}"
        refused = Deferred.fromCoroutine(db.run(execute, "SELECT 1"))
        await pause(0.02)

        await Deferred.fromCoroutine(db.close()).addTimeout(5, reactor)

        await slow
        await self.assertFailure(refused, Unavailable)
        await pause(0)

    async def _forbid_connections(self, name: str) -> None:
        await self._on_other_database(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        await self._on_other_database(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
        )
        await pause(0.05)

    async def _allow_connections(self, name: str) -> None:
        await self._on_other_database(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")

    async def _on_other_database(self, statement: str) -> None:
        with psycopg.connect(self.dsn, dbname="postgres", autocommit=True) as connection:
            connection.execute(statement.encode())


async def _backends(db: Connection) -> list[int]:
    cursor = await db.execute(
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name = 'homeserver'"
    )
    return [row[0] for row in await cursor.fetchall()]


class WriterTests(DatabaseTestCase):
    async def test_batch_is_written(self) -> None:
        """A batch of the log is durable afterwards."""
        await self.db.run(execute, "CREATE TABLE notes (n int PRIMARY KEY, note text)")

        await self.db.write_batch(self._batch("one", "two"))

        self.assertEqual(await self.db.run(answer, "SELECT count(*) FROM notes"), 2)

    async def test_lost_writer_raises_an_error_worth_a_retry_and_reconnects(self) -> None:
        """The log writes the batch again, and then it is stored once."""
        await self.db.run(execute, "CREATE TABLE notes (n int PRIMARY KEY, note text)")
        await self.db.run(
            execute,
            "CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS"
            " 'BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END'",
        )
        await self.db.run(
            execute, "CREATE TRIGGER die BEFORE INSERT ON notes EXECUTE FUNCTION die()"
        )

        with self.assertRaises(psycopg.OperationalError):
            await self.db.write_batch(self._batch("one"))
        await self.db.run(execute, "DROP TRIGGER die ON notes")
        await self.db.write_batch(self._batch("one"))

        self.assertEqual(await self.db.run(answer, "SELECT count(*) FROM notes"), 1)

    async def test_error_in_a_statement_is_not_taken_for_a_temporary_one(self) -> None:
        """A retry of a statement that can never succeed would block the log permanently."""
        with self.assertRaises(psycopg.errors.UndefinedTable):
            await self.db.write_batch(self._batch("one"))

    def _batch(self, *notes: str) -> Batch:
        batch = Batch()
        for number, note in enumerate(notes):
            batch.add(NOTE.row(number, note))
        return batch


class OpeningTests(TestCase):
    async def test_open_fails_where_there_is_no_database(self) -> None:
        """A wrong DSN is reported at the start, not at the first request."""
        dsn = fresh_database()
        drop_database(dsn)
        db = Database(reactor, dsn)

        with self.assertRaises(psycopg.OperationalError):
            await db.open()

        self.assertFalse(db.is_up)

"""Database failures in the pool and the log: temporary and permanent ones."""

import time
from typing import Any

import psycopg
from twisted.internet.defer import Deferred

from homeserver.protocol.errors import Unavailable
from homeserver.storage.database.batch import Batch, BatchStatement
from homeserver.storage.database.database import Connection, DatabaseUnavailable, NeverWritten
from tests.support.postgres import DatabaseTestCase
from tests.support.reactor import pause

NOTE = BatchStatement(
    "note",
    "INSERT INTO notes SELECT * FROM unnest(%s::int4[], %s::text[]) ON CONFLICT DO NOTHING",
    ("int4", "text"),
)


async def execute(db: Connection, query: str) -> None:
    await db.execute(query.encode())


class TroubleTests(DatabaseTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        await self.db.run(execute, "CREATE TABLE notes (n int PRIMARY KEY, said text UNIQUE)")

    async def write(self, *values: Any) -> None:
        batch = Batch()
        batch.add(NOTE.row(*values))
        await self.db.write_batch(batch)

    async def test_query_that_never_ends_does_not_keep_the_pool_open(self) -> None:
        """A database that hangs must not keep the server from stopping."""
        sleeping = Deferred.fromCoroutine(self.db.run(execute, "SELECT pg_sleep(60)"))
        await pause(0.2)
        begun = time.monotonic()

        await self.db.close(patience=0.1)

        assert time.monotonic() - begun < 5
        await self.assertFailure(sleeping, Unavailable)

    async def test_read_only_database_is_a_temporary_failure(self) -> None:
        """During a failover, clients are asked to retry: this is not a defect."""
        await self.make_read_only()
        with self.assertRaises(DatabaseUnavailable):
            await self.write(1, "again")
        with self.assertRaises(Unavailable):
            await self.db.run(execute, "DELETE FROM notes")

        await self.make_read_only(False)

        await self.write(1, "again")

    async def test_full_disk_is_a_temporary_failure(self) -> None:
        """The server continues once there is disk space again."""
        raising = "DO $$ BEGIN RAISE EXCEPTION 'full' USING ERRCODE = '53100'; END $$"

        with self.assertRaises(Unavailable):
            await self.db.run(execute, raising)

    async def test_row_that_postgresql_cannot_store_is_a_permanent_failure(self) -> None:
        """It would be written again and again, and block all later rows."""
        with self.assertRaises(NeverWritten) as caught:
            # An index takes a third of a page, and this cannot be compressed into one.
            await self.write(1, "".join(chr(0x4E00 + number % 20_000) for number in range(9_000)))

        assert not isinstance(caught.exception, DatabaseUnavailable)

    async def test_defect_in_a_statement_is_reported_as_one(self) -> None:
        """Only errors that may pass are reported as temporary."""
        with self.assertRaises(psycopg.errors.UndefinedTable):
            await self.db.run(execute, "SELECT * FROM nowhere")

    async def make_read_only(self, value: bool = True) -> None:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            connection.execute("SET default_transaction_read_only = off")
            row = connection.execute("SELECT current_database()").fetchone()
            assert row is not None
            change = "SET default_transaction_read_only = on" if value else "RESET ALL"
            connection.execute(f"ALTER DATABASE {row[0]} {change}".encode())
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        await pause(0.2)

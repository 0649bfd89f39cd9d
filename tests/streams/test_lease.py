"""The lease: renewed while the process lives, and lost only to another process."""

import psycopg
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from homeserver.storage.database.database import Connection, Database
from homeserver.storage.database.process_identity import this_process
from homeserver.storage.database.workers import claim_database, living_worker
from homeserver.streams.lease import RENEW_SECONDS, Lease
from tests.support.postgres import DatabaseTestCase
from tests.support.reactor import in_thread, until


class LeaseTests(DatabaseTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        process = this_process()
        number, _ = await in_thread(claim_database, self.dsn, process)
        self.mine = Database(
            reactor,
            self.dsn,
            pool_size=1,
            wait_seconds=0.2,
            worker=number,
            application_name=process.application_name,
        )
        await self.mine.open()
        self.clock = Clock()
        self.lease = Lease(self.mine, self.clock, number)
        self.lease.start()

    async def clean_up(self) -> None:
        await self.lease.give_back()
        await self.mine.close()
        await super().clean_up()

    async def execute(self, statement: str) -> None:
        async def run(db: Connection) -> None:
            await db.execute(statement.encode())

        await self.db.run(run)

    def is_expired(self) -> bool:
        with psycopg.connect(self.dsn) as connection:
            worker = living_worker(connection)
        return worker is None or worker.is_expired

    async def test_it_is_renewed_while_the_pool_is_busy(self) -> None:
        """A busy server is not taken for a dead one."""
        async with self.mine.connection():
            await self.execute("UPDATE leases SET until = now() - interval '1 s'")
            self.clock.advance(RENEW_SECONDS)
            await until(lambda: not self.is_expired())
        self.assertFalse(self.lease.lost.called)

    async def test_it_is_lost_to_another_process(self) -> None:
        """A process that has nothing to write notices, too, that it was replaced."""
        await self.execute("UPDATE leases SET until = now() - interval '1 s'")
        await in_thread(claim_database, self.dsn, this_process())
        self.clock.advance(RENEW_SECONDS)

        await until(lambda: self.lease.lost.called)
        self.assertEqual(len(self.flushLoggedErrors()), 0)

    async def test_it_survives_an_outage_of_the_database(self) -> None:
        """A restart of PostgreSQL ends no server."""
        await until(lambda: not self.is_expired())
        await self.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name LIKE 'homeserver %' AND datname = current_database()"
        )
        self.clock.advance(RENEW_SECONDS)
        await self.execute("UPDATE leases SET until = now() - interval '1 s'")

        async def renewed() -> None:
            while self.is_expired():
                self.clock.advance(RENEW_SECONDS)
                await in_thread(self.is_expired)

        await Deferred.fromCoroutine(renewed())
        self.assertFalse(self.lease.lost.called)

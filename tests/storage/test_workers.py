"""Workers: one process writes to a database, and the one that it replaced writes no more."""

import dataclasses
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import psycopg
from twisted.internet import reactor
from twisted.internet.defer import Deferred

from homeserver.protocol.errors import Unavailable
from homeserver.storage.database.batch import Batch, BatchStatement
from homeserver.storage.database.database import Connection, Database, Replaced
from homeserver.storage.database.migrate import Migration, load_migrations, migrate
from homeserver.storage.database.process_identity import (
    ProcessIdentity,
    _began,
    has_ended,
    this_process,
)
from homeserver.storage.database.workers import (
    FENCE,
    LEASE_SECONDS,
    LOCK_SECONDS,
    AnotherProcess,
    claim_database,
    give_database_back,
    renew_lease,
)
from tests.support.postgres import DatabaseTestCase
from tests.support.reactor import in_thread, until

NOTE = BatchStatement(
    "note",
    "INSERT INTO notes SELECT * FROM unnest(%s::int4[]) ON CONFLICT DO NOTHING",
    ("int4",),
)
LATE_NOTE = dataclasses.replace(NOTE, name="late_note", late=True)
REMOTE = ProcessIdentity("remote.example", "another machine", 4711, 1)


async def answer(db: Connection, query: str) -> Any:
    cursor = await db.execute(query.encode())
    row = await cursor.fetchone()
    return row and row[0]


async def execute(db: Connection, query: str) -> None:
    await db.execute(query.encode())


def batch_of(*numbers: int, late: bool = False) -> Batch:
    batch = Batch()
    for number in numbers:
        batch.add((LATE_NOTE if late else NOTE).row(number))
    return batch


@contextmanager
def _child_process() -> Iterator[ProcessIdentity]:
    """Another process on this machine, which is killed at the end of the block."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        yield msgspec.structs.replace(
            this_process(), pid=child.pid, pid_began=_began(child.pid) or 0
        )
        child.kill()


class WorkerTestCase(DatabaseTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        await self.db.run(execute, "CREATE TABLE notes (n int PRIMARY KEY)")

    async def claim(self, process: ProcessIdentity = REMOTE) -> int:
        number, _ = await in_thread(claim_database, self.dsn, process)
        return number

    async def worker(self, process: ProcessIdentity = REMOTE) -> Database:
        """The connections of a process that has claimed the database."""
        process = msgspec.structs.replace(process, run=this_process().run)
        number = await self.claim(process)
        db = Database(reactor, self.dsn, worker=number, application_name=process.application_name)
        await db.open()
        self.addCleanup(lambda: Deferred.fromCoroutine(db.close()))
        return db

    async def expire(self) -> None:
        await self.db.run(execute, "UPDATE leases SET until = now() - interval '1 s'")

    async def notes(self) -> int:
        found: int = await self.db.run(answer, "SELECT count(*) FROM notes")
        return found

    @contextmanager
    def renewed(self) -> Iterator[None]:
        """A process that renews its lease during the block."""
        ended = threading.Event()

        def renew() -> None:
            with psycopg.connect(self.dsn, autocommit=True) as connection:
                while not ended.wait(0.3):
                    connection.execute("UPDATE leases SET until = now() + interval '3 s'")

        thread = threading.Thread(target=renew)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


class ClaimTests(WorkerTestCase):
    async def test_a_living_process_keeps_its_database(self) -> None:
        """An operator who starts a server twice learns of the first one."""
        await self.claim()
        began = time.monotonic()
        with self.renewed(), self.assertRaises(AnotherProcess) as refused:
            await self.claim()

        self.assertIn("process 4711 on remote.example, started", str(refused.exception))
        self.assertIn("seconds ago", str(refused.exception))
        self.assertLess(time.monotonic() - began, LEASE_SECONDS)

    async def test_a_silent_process_is_replaced_when_its_lease_expires(self) -> None:
        """After a crash of another machine nobody has to repair anything."""
        first = await self.claim()
        began = time.monotonic()

        second, former = await in_thread(claim_database, self.dsn, this_process())

        assert former is not None
        self.assertEqual(former.worker, first)
        self.assertGreater(second, first)
        self.assertLess(time.monotonic() - began, LEASE_SECONDS + 1)

    async def test_a_process_that_ended_on_this_machine_is_replaced_at_once(self) -> None:
        """A supervisor that restarts a killed server need not wait for the lease."""
        with _child_process() as process:
            self.assertFalse(has_ended(process.machine, process.pid, process.pid_began))
            await self.claim(process)
        began = time.monotonic()

        await self.claim(this_process())

        self.assertLess(time.monotonic() - began, 1)

    async def test_a_process_id_that_is_used_again_is_another_process(self) -> None:
        """Process ids are used again, after a start of the machine in the same order."""
        here = this_process()

        self.assertFalse(has_ended(here.machine, here.pid, here.pid_began))
        self.assertTrue(has_ended(here.machine, here.pid, here.pid_began - 1))
        self.assertFalse(has_ended("another machine", here.pid, here.pid_began - 1))
        self.assertFalse(has_ended("", here.pid, here.pid_began - 1))

    async def test_a_database_that_was_given_back_is_free_at_once(self) -> None:
        """A restart takes no longer than before."""
        number = await self.claim()
        await self.db.run(give_database_back, number)
        began = time.monotonic()

        _, former = await in_thread(claim_database, self.dsn, REMOTE)

        self.assertIsNone(former)
        self.assertLess(time.monotonic() - began, 1)
        self.assertFalse(await self.db.run(renew_lease, number))

    async def test_all_shards_belong_to_the_one_process(self) -> None:
        """The owner of each shard can be looked up, with the number of times that it changed."""
        await self.claim()
        await self.expire()
        second = await self.claim()

        query = "SELECT array_agg(DISTINCT (worker, epoch)::text) || count(*)::text FROM shards"
        self.assertEqual(await self.db.run(answer, query), [f"({second},2)", "1024"])

    async def test_of_many_that_start_at_once_one_wins(self) -> None:
        """A supervisor that starts a server several times starts one."""
        outcomes: list[Any] = []

        def claim() -> None:
            try:
                outcomes.append(claim_database(self.dsn, this_process())[0])
            except AnotherProcess:
                outcomes.append(None)

        threads = [threading.Thread(target=claim) for _ in range(5)]
        with self.renewed():
            for thread in threads:
                thread.start()
            for thread in threads:
                await in_thread(thread.join)

        self.assertEqual(len([each for each in outcomes if each is not None]), 1, outcomes)

    async def test_the_schema_of_a_running_server_is_not_changed(self) -> None:
        """A newer version that is started beside the old one does it no harm."""
        await self.claim()
        applied = load_migrations()
        new = Migration(len(applied) + 1, "new", "CREATE TABLE new_table (n int)")
        with self.renewed(), self.assertRaises(AnotherProcess):
            await in_thread(migrate, self.dsn, [*applied, new])
        self.assertIsNone(await self.db.run(answer, "SELECT to_regclass('new_table')::text"))

        await self.expire()
        self.assertEqual(await in_thread(migrate, self.dsn, [*applied, new]), [new])


class FenceTests(WorkerTestCase):
    async def test_batches_of_a_replaced_process_are_not_written(self) -> None:
        """A process that was stopped and goes on after its replacement changes nothing."""
        former = await self.worker()
        await former.write_batch(batch_of(1))
        await former.write_batch(batch_of(2, late=True))
        await self.expire()
        await self.claim()

        for batch in (batch_of(3), batch_of(4, late=True)):
            with self.assertRaises(Replaced):
                await former.write_batch(batch)
        with self.assertRaises(Unavailable):
            await former.run(execute, "INSERT INTO notes VALUES (5)")

        self.assertEqual(await self.notes(), 2)

    async def test_late_statements_are_fenced_too(self) -> None:
        """A transaction of several statements is written as a whole, or not at all."""
        former = await self.worker()
        await former.run(execute, "UPDATE workers SET is_alive = false")
        batch = batch_of(1)
        batch.add(LATE_NOTE.row(2))

        with self.assertRaises(Replaced):
            await former.write_batch(batch)

        self.assertEqual(await self.notes(), 0)

    async def test_connections_of_a_replaced_process_are_closed(self) -> None:
        """What it had begun beside its log is rolled back before the new one reads anything."""
        former = await self.worker()

        async def half(db: Connection) -> None:
            await db.execute("INSERT INTO notes VALUES (1)")
            await db.execute("SELECT pg_sleep(60)")

        halfway = Deferred.fromCoroutine(former.transaction(half))
        await until(lambda: former.in_use == 1)
        await self.expire()
        await self.claim()

        with self.assertRaises(Unavailable):
            await halfway
        began = time.monotonic()
        with self.assertRaises(Unavailable):
            await former.run(answer, "SELECT 1")
        self.assertLess(time.monotonic() - began, 2)
        self.assertEqual(await self.notes(), 0)

    async def test_a_commit_in_progress_comes_before_the_take_over(self) -> None:
        """The new owner sees all that was acknowledged."""
        first = await self.claim()
        await self.expire()
        taken = await self._take_over_beside(first, lambda connection: connection.commit())

        self.assertEqual(await self.notes(), 1)
        self.assertGreater(await taken, first)

    async def test_a_commit_that_hangs_does_not_delay_the_take_over(self) -> None:
        """A connection of a machine that vanished holds the lock until it is closed."""
        first = await self.claim()
        await self.expire()
        began = time.monotonic()
        taken = await self._take_over_beside(first, lambda _: None)

        self.assertGreater(await taken, first)
        self.assertEqual(await self.notes(), 0)
        self.assertLess(time.monotonic() - began, LOCK_SECONDS + 3)

    async def _take_over_beside(
        self, first: int, end: Callable[[psycopg.Connection[Any]], None]
    ) -> "Deferred[int]":
        """Claim the database while a commit of its worker is in progress, and then end that."""
        committing = psycopg.connect(self.dsn, application_name=REMOTE.application_name)
        self.addCleanup(committing.close)
        statement = f"WITH note AS (INSERT INTO notes VALUES (1)), {FENCE.format(worker=first)}"
        committing.execute(f"{statement} SELECT * FROM fence".encode())
        taken = Deferred.fromCoroutine(self.claim(this_process()))
        waiting = "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        while not await self.db.run(answer, f"{waiting} AND datname = current_database()"):
            pass
        self.assertFalse(taken.called)
        end(committing)
        return taken

    async def test_a_race_of_commits_and_take_overs_has_one_winner(self) -> None:
        """Whatever was acknowledged is stored, and nothing is stored after the replacement."""
        for turn in range(10):
            former = await self.worker()
            acknowledged = 0
            with self.assertRaises((Replaced, psycopg.OperationalError)):
                taken: Deferred[int] | None = None
                while True:
                    await former.write_batch(batch_of(turn * 1_000_000 + acknowledged))
                    acknowledged += 1
                    if acknowledged == 3 * turn + 1:
                        await self.expire()
                        taken = Deferred.fromCoroutine(self.claim())
            assert taken is not None
            await taken
            stored = await self._notes_of(turn)
            self.assertIn(stored, (acknowledged, acknowledged + 1))
            with self.assertRaises(Replaced):
                await former.write_batch(batch_of(turn * 1_000_000 + 999_999))
            self.assertEqual(await self._notes_of(turn), stored)
            await self.expire()

    async def _notes_of(self, turn: int) -> int:
        found: int = await self.db.run(
            answer, f"SELECT count(*) FROM notes WHERE n / 1000000 = {turn}"
        )
        return found

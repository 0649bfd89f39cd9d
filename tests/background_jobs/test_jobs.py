"""Background jobs, on a real database: steps, crashes, failures, cancellation."""

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from homeserver.background_jobs.job_runner import MAX_ATTEMPTS, JobRunner
from homeserver.background_jobs.jobs import Jobs
from homeserver.protocol.errors import LimitExceeded, Unavailable
from homeserver.storage.database import background_jobs
from homeserver.storage.database.background_jobs import (
    MAX_UNFINISHED,
    Job,
    Progress,
    cancel_job,
    find_job,
    retry_job,
)
from homeserver.storage.database.database import Connection
from tests.support.postgres import DatabaseTestCase


class Counting:
    """A kind of job that counts to `arguments["to"]`, in the database and here."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []
        self.failures = 0
        self.error: Exception = ValueError("no \0 luck")

    async def in_transaction(self, db: Connection, job: Job) -> Progress:
        """Count in the transaction: a number that was counted twice would be refused."""
        number = job.progress.get("next", 0)
        await db.execute("INSERT INTO counted VALUES (%s, %s)", (job.job_id, number))
        return await self.idempotent(job)

    async def idempotent(self, job: Job) -> Progress:
        """Count here."""
        number = job.progress.get("next", 0)
        if self.failures:
            self.failures -= 1
            raise self.error
        self.seen.append((job.job_id, number))
        to = job.arguments["to"]
        return Progress({"next": number + 1}, number + 1, to, is_finished=number + 1 >= to)


class StillLog:
    """A log that writes nothing."""

    stalled_seconds = 0.0


class JobsTests(DatabaseTestCase):
    async def setUp(self) -> None:
        await super().setUp()
        async with self.db.connection() as connection:
            await connection.execute(
                "CREATE TABLE counted (job bigint, number bigint, PRIMARY KEY (job, number))"
            )
        self.clock = Clock()
        self.clock.advance(1_000_000)
        self.counting = Counting()
        self.jobs, self.runner = self.make()

    def make(self) -> tuple[Jobs, JobRunner]:
        """The objects of a server, as after a start."""
        jobs = Jobs(self.db, self.clock)
        jobs.add_kind("count", self.counting.in_transaction)
        jobs.add_idempotent_kind("count_here", self.counting.idempotent)
        return jobs, JobRunner(jobs, self.db, StillLog(), self.clock)  # type: ignore[arg-type]

    async def work(self, runner: JobRunner | None = None, *, seconds: float = 0.0) -> None:
        """Let the runner work, and its pauses pass."""
        working = Deferred.fromCoroutine((runner or self.runner).work())
        waited = 0.0
        while not working.called:
            await self.db.run(_nothing)
            self.clock.advance(0.02)
            waited += 0.02
        await working
        self.clock.advance(max(0.0, seconds - waited))

    async def job(self, job_id: int) -> Job:
        job = await self.db.run(find_job, job_id)
        assert job is not None
        return job

    async def counted(self) -> list[Any]:
        async with self.db.connection() as connection:
            cursor = await connection.execute("SELECT job, number FROM counted ORDER BY 1, 2")
            return await cursor.fetchall()

    async def test_a_job_is_done_step_by_step(self) -> None:
        """A server with much to do does it in pieces, and an operator sees how far it is."""
        job_id = await self.jobs.create("count", {"to": 3})

        await self.work()

        job = await self.job(job_id)
        self.assertEqual((job.state, job.done, job.total, job.error), ("done", 3, 3, None))
        self.assertEqual(await self.counted(), [(job_id, 0), (job_id, 1), (job_id, 2)])
        self.assertEqual(self.runner.steps, 3)

    async def test_unfinished_jobs_take_turns(self) -> None:
        """A job of hours does not keep a short one from beginning."""
        first = await self.jobs.create("count_here", {"to": 3})
        second = await self.jobs.create("count", {"to": 2})

        await self.work()

        order = [job_id for job_id, _ in self.counting.seen]
        self.assertEqual(order, [first, second, first, second, first])

    async def test_the_same_work_is_not_begun_twice(self) -> None:
        """An operator who repeats a command, or a task that runs daily, adds no second job."""
        first = await self.jobs.create("count", {"to": 1, "of": "a"})

        self.assertEqual(await self.jobs.create("count", {"of": "a", "to": 1}), first)
        self.assertNotEqual(await self.jobs.create("count", {"of": "b", "to": 1}), first)
        await self.work()
        self.assertNotEqual(await self.jobs.create("count", {"to": 1, "of": "a"}), first)

    async def test_a_step_that_is_interrupted_is_made_once(self) -> None:
        """A crash between the effects of a step and its progress is impossible."""
        job_id = await self.jobs.create("count", {"to": 2})
        self.counting.failures, self.counting.error = 1, Unavailable("gone")
        await self.work()
        self.assertEqual(await self.counted(), [])

        _, runner = self.make()
        await self.work(runner)

        self.assertEqual((await self.job(job_id)).state, "done")
        self.assertEqual(await self.counted(), [(job_id, 0), (job_id, 1)])

    async def test_a_failing_step_is_repeated_and_delays_no_other_job(self) -> None:
        """A passing error ends no job of hours, and one that stays is shown to the operator."""
        self.counting.failures = 1
        first = await self.jobs.create("count_here", {"to": 1})
        second = await self.jobs.create("count_here", {"to": 2})

        await self.work()
        between = await self.job(first)
        await self.work(seconds=60)
        await self.work()

        self.assertEqual((between.state, between.error), ("running", "ValueError: no  luck"))
        self.assertEqual((await self.job(second)).state, "done")
        self.assertEqual((await self.job(first)).state, "done")
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    async def test_a_job_that_keeps_failing_has_failed_and_can_be_continued(self) -> None:
        """The operator repairs the cause, and the job continues at its last step."""
        job_id = await self.jobs.create("count", {"to": 2})
        await self.db.run(_nothing)
        self.counting.failures = MAX_ATTEMPTS

        for _ in range(MAX_ATTEMPTS):
            await self.work(seconds=120)
        failed = await self.job(job_id)
        await self.work()
        self.assertTrue(await self.db.run(retry_job, job_id, 0))
        await self.work()

        self.assertEqual(failed.state, "failed")
        self.assertEqual((await self.job(job_id)).state, "done")
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), MAX_ATTEMPTS)

    async def test_a_cancelled_job_makes_no_further_step(self) -> None:
        """An operator who chose the wrong room can stop what has not happened yet."""
        job_id = await self.jobs.create("count", {"to": 2})

        self.assertTrue(await self.db.run(cancel_job, job_id, 0))
        await self.work()

        self.assertEqual((await self.job(job_id)).state, "cancelled")
        self.assertEqual(await self.counted(), [])
        self.assertFalse(await self.db.run(cancel_job, job_id, 0))

    async def test_a_job_of_another_version_waits(self) -> None:
        """A server that was set back to an older version neither fails nor loses the job."""
        job_id = await self.jobs.create("of_the_future", {})

        await self.work()

        self.assertEqual((await self.job(job_id)).state, "waiting")

    async def test_the_number_of_waiting_jobs_is_bounded(self) -> None:
        """Whatever creates jobs cannot fill the database with them."""
        async with self.db.connection() as connection:
            await connection.execute(
                """
                INSERT INTO background_jobs (kind, arguments, state, created_at, updated_at)
                SELECT 'other', number::text, 'waiting', 0, 0
                  FROM generate_series(1, %s) AS number
                """,
                (MAX_UNFINISHED,),
            )

        with self.assertRaises(LimitExceeded):
            await self.jobs.create("count", {"to": 1})
        # The server's own work is not refused for it, which would keep it from starting.
        own = await self.jobs.create("count", {})
        self.assertEqual(await self.jobs.create("count", {}), own)

    async def test_a_job_that_exists_is_named_however_many_wait(self) -> None:
        """An operator who repeats a command is not told to come back later."""
        job_id = await self.jobs.create("count", {"to": 1})
        self.patch(background_jobs, "MAX_UNFINISHED", 1)

        self.assertEqual(await self.jobs.create("count", {"to": 1}), job_id)
        with self.assertRaises(LimitExceeded):
            await self.jobs.create("count", {"to": 2})

    async def test_old_jobs_are_deleted(self) -> None:
        """What was done a month ago does not fill the list."""
        job_id = await self.jobs.create("count_here", {"to": 1})
        await self.work()

        self.clock.advance(31 * 86_400)
        await self.work()

        self.assertIsNone(await self.db.run(find_job, job_id))

    async def test_steps_wait_while_the_database_is_busy(self) -> None:
        """A user's request comes before the clean-up; but it is not put off without end."""
        job_id = await self.jobs.create("count_here", {"to": 1})
        self.runner._log.stalled_seconds = 1.0  # type: ignore[misc]
        began = self.clock.seconds()

        await self.work()

        self.assertGreater(self.clock.seconds() - began, 9.0)
        self.assertEqual((await self.job(job_id)).state, "done")


async def _nothing(db: Connection) -> None:
    await db.execute("SELECT 1")

"""The runner of background jobs: one step at a time, while the server has little else to do."""

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from homeserver.background_jobs.jobs import Jobs, TransactionStep
from homeserver.concurrency.backoff import RetrySchedule
from homeserver.concurrency.clock import Clock, now_ms
from homeserver.concurrency.periodic import PeriodicTask
from homeserver.concurrency.retry_pauses import RetryPauses, Stopped
from homeserver.protocol.errors import Unavailable
from homeserver.storage.database.background_jobs import (
    Job,
    delete_finished_jobs,
    fail_job,
    lock_job,
    newest_jobs,
    save_progress,
    take_job,
)
from homeserver.storage.database.database import Connection, Database, DatabaseUnavailable
from homeserver.streams.log import Log

POLL_SECONDS = 2.0  # after which a new job is noticed
LOCK_TIMEOUT = "2s"  # for a row that a step needs
SHARE = 4.0  # the pause after a step, as a multiple of its duration
MIN_PAUSE, MAX_PAUSE = 0.02, 10.0  # seconds
BUSY_PAUSES = RetrySchedule((0.25,))
MAX_BUSY_PAUSES = 40  # after which a step is made nevertheless
STALLED_SECONDS = 0.1  # that a commit of the log takes on a busy server
TIDY_SECONDS = 3_600.0
KEPT_MS = 30 * 86_400_000  # jobs that ended
MAX_DELETED = 1_000
RETRIES = RetrySchedule((5.0, 15.0, 60.0))
MAX_ATTEMPTS = 5
MAX_ERROR = 1_000  # characters
WATCHED = 100  # jobs in the metrics
log = Logger()


class JobRunner:
    """Does what jobs there are. `start` it when all kinds are registered."""

    def __init__(self, jobs: Jobs, db: Database, stream_log: Log, clock: Clock) -> None:
        self.watched: list[Job] = []  # the unfinished and the newest ones, as of the last look
        self.steps = 0
        self._jobs = jobs
        self._db = db
        self._log = stream_log
        self._clock = clock
        self._pauses = RetryPauses(clock, BUSY_PAUSES)
        # Failed attempts of jobs that failed or that wait, and the time of the next one.
        self._later: dict[int, tuple[int, float]] = {}
        self._watched_at = 0.0
        self._tidied_at: float | None = None
        self._polling = PeriodicTask(clock, POLL_SECONDS, self.work, name="background jobs")

    def start(self) -> None:
        """Begin to look for jobs, and to continue those that were interrupted."""
        self._polling.start(now=True)

    def stop(self) -> Deferred[None]:
        """Begin no further step; fires when the present one has ended."""
        self._pauses.stop()
        return self._polling.stop()

    async def work(self) -> None:
        """Make steps until no job is left that can continue now."""
        try:
            await self._tidy()
            while (job := await self._next()) is not None:
                await self._watch()
                await self._step(job)
            await self._watch()
        except (Unavailable, DatabaseUnavailable, Stopped):
            return  # the next run continues

    async def _tidy(self) -> None:
        now = self._clock.seconds()
        if self._tidied_at is None or now - self._tidied_at >= TIDY_SECONDS:
            self._tidied_at = now
            oldest = now_ms(self._clock) - KEPT_MS
            await self._db.run(delete_finished_jobs, oldest, MAX_DELETED)

    async def _watch(self) -> None:
        now = self._clock.seconds()
        if now - self._watched_at >= POLL_SECONDS or self._watched_at == 0.0:
            self._watched_at = now
            self.watched = await self._db.run(newest_jobs, WATCHED)

    async def _next(self) -> Job | None:
        self._pauses.check()
        now = self._clock.seconds()
        besides = [job_id for job_id, (_, due) in self._later.items() if due > now]
        return await self._db.run(take_job, self._jobs.kinds, besides, now_ms(self._clock))

    async def _step(self, job: Job) -> None:
        await self._wait_while_busy()
        began = self._clock.seconds()
        try:
            rest = await self._step_of_kind(job)
        except (Unavailable, DatabaseUnavailable):
            raise
        except Exception as error:
            await self._note_failure(job, error)
        else:
            self._later.pop(job.job_id, None)
            if rest:
                self._later[job.job_id] = 0, self._clock.seconds() + rest
        self.steps += 1
        pause = (self._clock.seconds() - began) * SHARE
        await self._pauses.wait_seconds(min(max(pause, MIN_PAUSE), MAX_PAUSE))

    async def _wait_while_busy(self) -> None:
        """Leave the database to requests of users, but not without end."""
        for _ in range(MAX_BUSY_PAUSES):
            if not self._db.waiting and self._log.stalled_seconds < STALLED_SECONDS:
                return
            await self._pauses.wait(1)

    async def _step_of_kind(self, job: Job) -> float:
        """Make a step; returns how long the job wants to wait."""
        kind = self._jobs.kind(job.kind)
        if kind.idempotent is not None:
            progress = await kind.idempotent(job)
            await self._db.run(save_progress, job.job_id, progress, now_ms(self._clock))
            return progress.pause
        assert kind.in_transaction is not None, "a kind has one of the two steps"
        step = kind.in_transaction
        return await self._db.transaction(self._step_in_transaction, step, job.job_id)

    async def _step_in_transaction(
        self, db: Connection, step: TransactionStep, job_id: int
    ) -> float:
        await db.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
        job = await lock_job(db, job_id)
        if job is None:  # it was cancelled meanwhile
            return 0.0
        progress = await step(db, job)
        await save_progress(db, job_id, progress, now_ms(self._clock))
        return progress.pause

    async def _note_failure(self, job: Job, error: Exception) -> None:
        attempts, _ = self._later.pop(job.job_id, (0, 0.0))
        attempts += 1
        is_last = attempts >= MAX_ATTEMPTS
        if not is_last:
            due = self._clock.seconds() + RETRIES.pause(attempts)
            self._later[job.job_id] = attempts, due
        log.failure(
            "attempt {attempt} of {most} at a step of the job {job_id} ({kind}) failed",
            attempt=attempts,
            most=MAX_ATTEMPTS,
            job_id=job.job_id,
            kind=job.kind,
        )
        text = f"{type(error).__name__}: {error}".replace("\0", "")[:MAX_ERROR]
        await self._db.run(fail_job, job.job_id, text, now_ms(self._clock), is_last=is_last)

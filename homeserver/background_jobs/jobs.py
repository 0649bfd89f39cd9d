"""Background jobs: work that takes long is done in small steps, and survives a crash.

A job has a kind, a unique id and arguments, and is a row of the database. To have one done:

    jobs.add_kind("reindex", step)                     # in wiring, before the server starts
    await jobs.create("reindex", {"since": 0})         # at any time; an id

A *step* does a bounded piece, a second at most, and returns `Progress`: where the next one begins.
There are two kinds of steps:

- `add_kind(name, step)`: `step(db, job)` runs in a transaction of `db`, and its progress is stored
  in that transaction. So each step happens once, however the process ends.
- `add_idempotent_kind(name, step)`: `step(job)` works through other objects or the log. Its
  progress is stored after it, so after a crash a step may be repeated: that must do no harm.

One step runs at a time, with one database connection at most; unfinished jobs take turns. Steps
pause where the database is busy, and for a multiple of their own time (`job_runner.py`). A step
that fails is repeated, and after some attempts its job has failed; `homeserver jobs retry`
continues it. A job whose kind this version does not know waits.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from homeserver.concurrency.clock import Clock, now_ms
from homeserver.protocol.errors import LimitExceeded
from homeserver.storage.database.background_jobs import Job, Progress, insert_job
from homeserver.storage.database.database import Connection, Database

RETRY_MS = 60_000

TransactionStep = Callable[[Connection, Job], Awaitable[Progress]]
IdempotentStep = Callable[[Job], Awaitable[Progress]]


class JobKind(msgspec.Struct, frozen=True):
    """What the jobs of a kind do: exactly one of the two steps."""

    name: str
    in_transaction: TransactionStep | None = None
    idempotent: IdempotentStep | None = None


class Jobs:
    """The kinds of jobs of one server, and their creation."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._kinds: dict[str, JobKind] = {}

    @property
    def kinds(self) -> list[str]:
        """The names of all kinds."""
        return list(self._kinds)

    def add_kind(self, name: str, step: TransactionStep) -> None:
        """Register a kind whose steps run in a transaction, together with their progress."""
        self._kinds[name] = JobKind(name, in_transaction=step)

    def add_idempotent_kind(self, name: str, step: IdempotentStep) -> None:
        """Register a kind whose steps can be repeated without harm."""
        self._kinds[name] = JobKind(name, idempotent=step)

    def kind(self, name: str) -> JobKind:
        """A kind by its name."""
        return self._kinds[name]

    async def create(self, kind: str, arguments: dict[str, Any]) -> int:
        """Create a job, which begins within seconds; returns its id.

        An unfinished one with the same arguments is not created twice: its id is returned. Raises
        `LimitExceeded` if too many jobs wait.
        """
        job_id = await self._db.run(insert_job, kind, arguments, now_ms(self._clock))
        if job_id is None:
            raise LimitExceeded(RETRY_MS)
        return job_id

"""The background job that indexes what was stored before: after an upgrade, or on request.

It goes through all events in the order of the log, and writes the rows that are missing or differ.
Messages that come meanwhile are the work of the durable reader, as always.
"""

from homeserver.background_jobs.jobs import Jobs
from homeserver.search.index_writer import IndexWriter
from homeserver.search.indexed_events import PAGE_EVENTS, IndexSource
from homeserver.storage.database.background_jobs import Job, Progress
from homeserver.storage.database.database import Database
from homeserver.storage.database.reader_positions import reader_position
from homeserver.storage.search.stored_texts import estimated_events, has_events
from homeserver.streams.log import Log

JOB = "search_index"
READER = "search_index"


class IndexJob:
    """Creates the job, and makes its steps: a page of events each."""

    def __init__(
        self, db: Database, log: Log, jobs: Jobs, source: IndexSource, writer: IndexWriter
    ) -> None:
        self._db = db
        self._log = log
        self._jobs = jobs
        self._source = source
        self._writer = writer

    async def create_if_new(self) -> None:
        """Have what there is indexed if the reader is new; to be called before it is loaded."""
        is_new = await self._db.run(reader_position, READER) is None
        if is_new and await self._db.run(has_events):
            await self._jobs.create(JOB, {})

    async def step(self, job: Job) -> Progress:
        """Index the next page."""
        after = int(job.progress.get("after", 0))
        upto = int(job.progress.get("upto", self._log.position))
        total = await self._db.run(estimated_events)
        page = await self._source.load(after, upto)
        if page.items:
            await self._writer.write(page.items)
        is_finished = page.upto >= upto
        done = job.done + PAGE_EVENTS
        return Progress(
            {"after": page.upto, "upto": upto},
            done if total is None else min(done, total),
            total,
            is_finished=is_finished,
        )

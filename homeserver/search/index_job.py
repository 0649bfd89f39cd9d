"""The background job that indexes what was stored before: after an upgrade, or on request.

It goes through the rooms one by one, and writes the entries of their events again, in full blocks.
Messages that come meanwhile are the work of the durable reader, as always.
"""

from homeserver.background_jobs.jobs import Jobs
from homeserver.search.index_writer import IndexWriter
from homeserver.search.indexed_events import IndexSource
from homeserver.storage.database.background_jobs import Job, Progress
from homeserver.storage.database.database import Database
from homeserver.storage.database.reader_positions import reader_position
from homeserver.storage.search.stored_texts import estimated_events, has_events, next_room
from homeserver.streams.positions import MAX_POSITION

JOB = "search_index"
READER = "search_index"


class IndexJob:
    """Creates the job, and makes its steps: a page of events each."""

    def __init__(self, db: Database, jobs: Jobs, source: IndexSource, writer: IndexWriter) -> None:
        self._db = db
        self._jobs = jobs
        self._source = source
        self._writer = writer

    async def create_if_new(self) -> None:
        """Have what there is indexed if the reader is new; to be called before it is loaded."""
        is_new = await self._db.run(reader_position, READER) is None
        if is_new and await self._db.run(has_events):
            await self._jobs.create(JOB, {})

    async def step(self, job: Job) -> Progress:
        """Index the next page of a room, or begin with the next room."""
        room = job.progress.get("room")
        if room is None:
            room = await self._db.run(next_room, int(job.progress.get("after_room", -1)))
            if room is None:
                return Progress(dict(job.progress), job.done, job.total, is_finished=True)
        total = await self._db.run(estimated_events)
        items, place = await self._source.load_room(room, job.progress.get("place", -MAX_POSITION))
        if items:
            await self._writer.write(items)
        progress = {"after_room": room} if place is None else {"room": room, "place": place}
        done = job.done + len(items)
        return Progress(progress, done if total is None else min(done, total), total)

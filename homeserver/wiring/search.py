"""The server-side search: its index, and the endpoint."""

from contextlib import suppress
from typing import Any

from homeserver.background_jobs.jobs import Jobs
from homeserver.client_api.search.search import SearchApi
from homeserver.concurrency.deferreds import TimedOut, with_timeout
from homeserver.config.settings import Settings
from homeserver.rooms.history.history import History
from homeserver.search.event_search import EventSearch
from homeserver.search.found_events import FoundEvents
from homeserver.search.index_job import JOB, READER, IndexJob
from homeserver.search.index_search import IndexSearch
from homeserver.search.index_writer import IndexWriter
from homeserver.search.indexed_events import IndexSource
from homeserver.search.indexing import Indexing
from homeserver.search.result_context import NoBackfill, ResultContexts
from homeserver.search.room_scope import RoomScope
from homeserver.search.searches import Searches
from homeserver.storage.database.database import Database
from homeserver.streams.durable_readers import DurableReaders
from homeserver.streams.log import Log
from homeserver.web.routes import Route
from homeserver.wiring.accounts.account_core import AccountCore
from homeserver.wiring.room_core import RoomCore
from homeserver.wiring.rooms import RoomServices

STOP_SECONDS = 2.0  # for what is not written when the server stops


class Search:
    """All objects of the area. If search is disabled, nothing is indexed, and nothing served."""

    def __init__(
        self,
        reactor: Any,
        settings: Settings,
        db: Database,
        log: Log,
        jobs: Jobs,
        readers: DurableReaders,
        account_core: AccountCore,
        room_core: RoomCore,
        rooms: RoomServices,
    ) -> None:
        self._clock = reactor
        self._is_enabled = settings.search.enabled
        self.writer = IndexWriter(db, reactor)
        self.indexing = Indexing(self.writer, reactor)
        names, registry = room_core.names, room_core.registry
        account_data = account_core.account_data
        source = self.source = IndexSource(db, names, reactor)
        self._job = IndexJob(db, jobs, source, self.writer)
        if self._is_enabled:
            indexing = self.indexing
            readers.add(READER, source, indexing.handle, first_unsaved=indexing.first_unsaved)
            jobs.add_idempotent_kind(JOB, self._job.step)
        history = History(db, registry, rooms.reader, room_core.visibility, NoBackfill())
        event_search = EventSearch(
            db,
            log,
            reactor,
            names,
            account_data,
            RoomScope(names, registry, room_core.user_rooms),
            IndexSearch(db, names, self.indexing, reactor),
            source,
            FoundEvents(registry, rooms.reader, room_core.visibility, rooms.relations),
        )
        contexts = ResultContexts(registry, rooms.reader, history, rooms.relations)
        searches = Searches(event_search, contexts, account_data)
        self._api = SearchApi(searches, room_core.local_server)

    async def load(self) -> None:
        """Have what there is indexed, if it never was. The readers are loaded later."""
        if self._is_enabled:
            await self._job.create_if_new()
            await self.writer.write([])  # what was purged before the last stop

    async def stop(self) -> None:
        """Write what waits, unless that takes too long, and stop writing the index."""
        with suppress(TimedOut):
            await with_timeout(self.indexing.written(), STOP_SECONDS, self._clock)
        self.writer.stop()
        await self.indexing.stop()

    def routes(self) -> list[Route]:
        """The area's part of the client API."""
        return self._api.routes() if self._is_enabled else []

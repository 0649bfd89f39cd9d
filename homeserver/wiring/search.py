"""The server-side search: its index, and the endpoint."""

from typing import Any

from homeserver.client_api.search.search import SearchApi
from homeserver.config.settings import Settings
from homeserver.rooms.history.history import History
from homeserver.search.event_search import EventSearch
from homeserver.search.found_events import FoundEvents
from homeserver.search.index_writer import Indexing, IndexWriter
from homeserver.search.indexed_events import IndexSource, PastSource
from homeserver.search.result_context import NoBackfill, ResultContexts
from homeserver.search.room_scope import RoomScope
from homeserver.search.searches import Searches
from homeserver.storage.database.database import Database
from homeserver.streams.durable_readers import DurableReaders
from homeserver.web.routes import Route
from homeserver.wiring.accounts.account_core import AccountCore
from homeserver.wiring.room_core import RoomCore
from homeserver.wiring.rooms import RoomServices


class Search:
    """All objects of the area. If search is disabled, nothing is indexed, and nothing served."""

    def __init__(
        self,
        reactor: Any,
        settings: Settings,
        db: Database,
        readers: DurableReaders,
        account_core: AccountCore,
        room_core: RoomCore,
        rooms: RoomServices,
    ) -> None:
        self._is_enabled = settings.search.enabled
        self._writer = IndexWriter(db, reactor)
        self._newest, self._past = [Indexing(self._writer, reactor) for _ in range(2)]
        names, registry = room_core.names, room_core.registry
        account_data = account_core.account_data
        if self._is_enabled:
            for name, source, indexing in (
                ("search_index", IndexSource(db, names), self._newest),
                ("search_history", PastSource(db, names), self._past),
            ):
                readers.add(name, source, indexing.handle, indexing.first_unfinished)
        history = History(db, registry, rooms.reader, room_core.visibility, NoBackfill())
        event_search = EventSearch(
            db,
            names,
            account_data,
            RoomScope(names, registry, room_core.user_rooms),
            FoundEvents(registry, rooms.reader, room_core.visibility, rooms.relations),
        )
        contexts = ResultContexts(registry, rooms.reader, history, rooms.relations)
        searches = Searches(reactor, self._newest, event_search, contexts, account_data)
        self._api = SearchApi(searches, room_core.local_server)

    async def stop(self) -> None:
        """Stop writing the index, before the readers stop, which may wait for it."""
        self._writer.stop()
        await self._newest.stop()
        await self._past.stop()

    def routes(self) -> list[Route]:
        """The area's part of the client API."""
        return self._api.routes() if self._is_enabled else []

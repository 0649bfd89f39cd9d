"""The user directory: its index, which follows the log, and the searches in it."""

from typing import Any

from homeserver.client_api.server.user_directory import UserDirectoryApi
from homeserver.config.settings import Settings
from homeserver.rooms.discovery.room_summaries import RoomSummaries
from homeserver.storage.database.database import Database
from homeserver.streams.durable_readers import DurableReaders
from homeserver.user_directory.changes import DirectoryChanges
from homeserver.user_directory.filling import UserDirectoryFilling
from homeserver.user_directory.index import UserDirectoryIndex
from homeserver.user_directory.search import UserSearch
from homeserver.web.routes import Route
from homeserver.wiring.room_core import RoomCore


class UserDirectory:
    """All objects of the area. The summaries of rooms are subscribed to the log before it is made.

    A directory that is off is not filled; once it is on, it continues where it was.
    """

    def __init__(
        self,
        reactor: Any,
        settings: Settings,
        db: Database,
        readers: DurableReaders,
        room_core: RoomCore,
        summaries: RoomSummaries,
    ) -> None:
        self._is_enabled = settings.user_directory.enabled
        names, server_name = room_core.names, settings.server_name
        index = UserDirectoryIndex(db, names, room_core.registry, summaries)
        self._filling = UserDirectoryFilling(db, reactor, index)
        if self._is_enabled:
            readers.add("user_directory", DirectoryChanges(db, names), index.handle)
        self._search = UserSearch(
            db,
            names,
            room_core.user_rooms,
            server_name,
            slots=max(settings.database.pool_size // 2 - 1, 1),
            is_enabled=self._is_enabled,
            all_users=settings.user_directory.search_all_users,
        )

    def start(self) -> None:
        """Begin to fill the directory."""
        if self._is_enabled:
            self._filling.start()

    async def stop(self) -> None:
        """End what is in progress."""
        await self._filling.stop()

    def routes(self) -> list[Route]:
        """The area's part of the client API."""
        return UserDirectoryApi(self._search).routes()

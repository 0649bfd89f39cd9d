"""History import: what application services need to insert old messages, and its client API."""

from homeserver.client_api.rooms.history_import import HistoryImportApi
from homeserver.rooms.ephemeral.receipts import Receipts
from homeserver.rooms.history_import.history_import import FindImporter, HistoryImport
from homeserver.storage.database.database import Database
from homeserver.web.routes import Route
from homeserver.wiring.room_core import RoomCore


class HistoryImports:
    """All objects of the area."""

    def __init__(
        self, db: Database, room_core: RoomCore, receipts: Receipts, find_importer: FindImporter
    ) -> None:
        self.imports = HistoryImport(db, room_core.registry, receipts, find_importer)

    def routes(self) -> list[Route]:
        """The area's part of the client API."""
        return HistoryImportApi(self.imports).routes()

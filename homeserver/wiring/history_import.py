"""History import: what application services need to insert old messages, and its client API."""

from homeserver.accounts.appservices.appservices import Appservices
from homeserver.accounts.sessions.requester import Requester
from homeserver.client_api.rooms.history_import import HistoryImportApi
from homeserver.rooms.ephemeral.receipts import Receipts
from homeserver.rooms.history_import.history_import import HistoryImport
from homeserver.rooms.history_import.import_request import Importer
from homeserver.storage.database.database import Database
from homeserver.web.routes import Route
from homeserver.wiring.room_core import RoomCore


class HistoryImports:
    """All objects of the area."""

    def __init__(
        self, db: Database, room_core: RoomCore, receipts: Receipts, appservices: Appservices
    ) -> None:
        def find_importer(caller: Requester) -> Importer | None:
            services = (each for each in appservices.all if each.may_import_history)
            return next((each for each in services if each.id == caller.appservice), None)

        self._imports = HistoryImport(db, room_core.registry, receipts, find_importer)

    def routes(self) -> list[Route]:
        """The area's part of the client API."""
        return HistoryImportApi(self._imports).routes()

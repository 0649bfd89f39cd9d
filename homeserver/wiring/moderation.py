"""Moderation: users' reports, and server notices."""

from typing import Any

from homeserver.client_api.server.reports import ReportsApi
from homeserver.client_api.server.server_notices import ServerNoticesApi
from homeserver.config.settings import Settings
from homeserver.moderation.reports import Reports
from homeserver.moderation.server_notices import ServerNotices
from homeserver.storage.database.database import Database
from homeserver.web.routes import Route
from homeserver.wiring.accounts.account_core import AccountCore
from homeserver.wiring.accounts.account_services import AccountServices
from homeserver.wiring.room_core import RoomCore
from homeserver.wiring.rooms import RoomServices


class Moderation:
    """All objects of the area."""

    def __init__(
        self,
        reactor: Any,
        settings: Settings,
        db: Database,
        account_core: AccountCore,
        accounts: AccountServices,
        room_core: RoomCore,
        rooms: RoomServices,
    ) -> None:
        self._reports = Reports(db, reactor, settings.server_name, room_core.registry, rooms.reader)
        self._notices = ServerNotices(
            accounts.notices_account,
            account_core.account_data,
            room_core.registry,
            rooms.creation,
            rooms.memberships,
            rooms.transactions,
            version=settings.rooms.default_version,
            name=settings.server_notices.room_name,
        )

    def routes(self) -> list[Route]:
        """The area's part of the client API."""
        return [*ReportsApi(self._reports).routes(), *ServerNoticesApi(self._notices).routes()]

"""The WebSocket transport: its sockets, their methods, and their connection to the engine."""

from functools import partial
from typing import TYPE_CHECKING, Any

from homeserver.client_api.sync.sliding_sync_methods import SlidingSyncMethods
from homeserver.client_api.sync.stream_api import StreamApi
from homeserver.client_api.sync.stream_connections import StreamConnections
from homeserver.client_api.sync.stream_methods import (
    EphemeralMethods,
    EventMethods,
    Methods,
    SocketMethods,
    UserMethods,
)
from homeserver.client_api.sync.stream_session import Services
from homeserver.concurrency.late_imports import Late
from homeserver.config.sections.limits import WebSocketSettings
from homeserver.config.settings import Settings
from homeserver.streams.log import Log
from homeserver.sync.subscription import BatchScheduler
from homeserver.web.rate_limits import RateLimits
from homeserver.web.routes import Route
from homeserver.wiring.accounts.account_core import AccountCore
from homeserver.wiring.rooms import RoomServices
from homeserver.wiring.sync import Sync

if TYPE_CHECKING:
    from homeserver.client_api.sync.stream import StreamFactory

STREAM_MODULE = "homeserver.client_api.sync.stream"


class Stream:
    """All objects of the area."""

    def __init__(
        self,
        reactor: Any,
        settings: Settings,
        log: Log,
        rate_limits: RateLimits,
        account_core: AccountCore,
        rooms: RoomServices,
        sync: Sync,
    ) -> None:
        websocket = settings.websocket
        self.connections = StreamConnections(reactor, websocket)
        methods = Methods(
            rate_limits,
            [
                *SocketMethods().methods(),
                *EventMethods(rooms.sending).methods(),
                *EphemeralMethods(sync.typing, sync.markers).methods(),
                *UserMethods(sync.tracker, account_core.account_data).methods(),
                *SlidingSyncMethods(sync.sliding.api, sync.sliding.sliding_sync).methods(),
            ],
        )
        services = Services(
            sync.engine,
            BatchScheduler(reactor),
            sync.tracker,
            methods,
            websocket.ack_window,
            websocket.max_frame,
        )
        self._api = StreamApi(
            websocket,
            Late(reactor, STREAM_MODULE, partial(_stream_factory, reactor, websocket)),
            services,
            self.connections,
            account_core.access_tokens,
        )
        log.subscribe(self.connections.apply)

    def start(self) -> None:
        """Start background work."""
        self.connections.start()

    def end_waits(self) -> None:
        """Close all sockets, so that their clients connect again later: the server is stopping."""
        self.connections.stop()

    def routes(self) -> list[Route]:
        """The area's part of the client API."""
        return self._api.routes()


def _stream_factory(reactor: Any, settings: WebSocketSettings) -> "StreamFactory":
    from homeserver.client_api.sync.stream import StreamFactory

    return StreamFactory(reactor, settings)

"""The endpoint of the WebSocket for sync and calls, whose sockets are in `stream.py`.

`docs/websocket.md` describes the protocol for authors of clients.
"""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from homeserver.accounts.sessions.requester import Requester
from homeserver.client_api.sync.stream_connections import StreamConnections
from homeserver.client_api.sync.stream_session import Opening, Services, StreamSession
from homeserver.client_api.sync.sync import StateAfterQuery
from homeserver.concurrency.late_imports import Late
from homeserver.config.sections.limits import WebSocketSettings
from homeserver.presence.user_presence import State
from homeserver.protocol.errors import MissingToken
from homeserver.streams.sync_tokens import parse_sync_token
from homeserver.web.authentication import Authenticator
from homeserver.web.request import Request
from homeserver.web.routes import Auth, Route
from homeserver.web.socket_upgrades import Upgrade

if TYPE_CHECKING:
    from homeserver.client_api.sync.stream import StreamFactory

SUBPROTOCOL = "m.json"


class StreamQuery(StateAfterQuery):
    """The parameters: those of `/sync`, and a name for this connection of the device.

    Without `updates` the socket has only what the client calls for.
    """

    since: str | None = None
    filter: str | None = None
    full_state: bool = False
    set_presence: State | None = None
    conn: str = ""
    updates: bool = True


class OpeningRequest(msgspec.Struct, frozen=True):
    """The data of the opening request that later token checks need."""

    address: str
    parameters: Mapping[str, list[str]]

    def header(self, name: bytes) -> str | None:
        return None


class StreamApi:
    """`GET /stream`, the WebSocket."""

    def __init__(
        self,
        settings: WebSocketSettings,
        factory: Late["StreamFactory"],
        services: Services,
        connections: StreamConnections,
        authenticator: Authenticator,
    ) -> None:
        self._is_enabled = settings.enabled
        self._query_token = settings.query_token
        self._factory = factory
        self._services = services
        self._connections = connections
        self._authenticator = authenticator

    def routes(self) -> list[Route]:
        if not self._is_enabled:
            return []
        # By the specification's convention, unspecified paths are under `/unstable/`.
        paths = ("/_matrix/client/v3/stream", "/_matrix/client/unstable/stream")
        return [
            Route("GET", path, self.stream, Auth.GUEST, cancellable=True, websocket=True)
            for path in paths
        ]

    async def stream(self, caller: Requester, query: StreamQuery, request: Request) -> Upgrade:
        """Open a WebSocket that gets the updates of `/sync`, and accepts calls."""
        token = request.token()
        if token is None or ("access_token" in request.parameters and not self._query_token):
            raise MissingToken("The access token must not be in the URL of a WebSocket")
        self._connections.check_may_open(caller, query.conn)
        since = None if query.since is None else parse_sync_token(query.since)
        sync_request = await self._services.engine.build_request(
            caller,
            filter_text=query.filter,
            full_state=query.full_state,
            state_after=query.state_after,
        )
        origin = OpeningRequest(request.address, request.parameters)
        opening = Opening(
            sync_request=sync_request,
            since=since,
            updates=query.updates,
            filter_text=query.filter,
            set_presence=query.set_presence,
            connection=query.conn,
            admit=partial(self._authenticator.authenticate, token, origin),
        )
        factory = await self._factory.get()
        from homeserver.client_api.sync.stream import StreamSocket  # imported for the factory

        socket = StreamSocket(partial(StreamSession, opening, self._services), self._connections)
        return Upgrade(factory, socket, (SUBPROTOCOL,))

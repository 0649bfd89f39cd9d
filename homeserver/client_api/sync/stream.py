"""Sync and calls over a WebSocket.

The socket class only forwards to a `StreamSession` and sends bytes cheaply: a message to many
sockets is framed once for all of them, and compressed once if it is long and they negotiated that.
`docs/websocket.md` describes the protocol for authors of clients.

Spec: https://spec.matrix.org/v1.19/client-server-api/#syncing
"""

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import Any

from twisted.internet.interfaces import IPushProducer, IReactorTime
from zope.interface import implementer

from homeserver.accounts.sessions.requester import Requester
from homeserver.client_api.sync.stream_connections import StreamConnections
from homeserver.client_api.sync.stream_session import Opening, Services, StreamSession
from homeserver.client_api.sync.sync import StateAfterQuery
from homeserver.config.sections.limits import WebSocketSettings
from homeserver.presence.user_presence import State
from homeserver.protocol.errors import MissingToken
from homeserver.streams.sync_tokens import parse_sync_token
from homeserver.web.authentication import Authenticator
from homeserver.web.request import Request
from homeserver.web.routes import Auth, Route
from homeserver.web.websocket import Socket, SocketFactory, Upgrade
from homeserver.web.writing import write_now

SUBPROTOCOL = "m.json"

TEXT_FRAME = 1
COMPRESSED = 4  # the reserved bit that permessage-deflate uses, RFC 7692, 6
COMPRESS_FROM = 1_400  # bytes; a message that fits into a packet gains nothing
COMPRESSION_LEVEL = 3  # of 9


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


@dataclass(frozen=True, slots=True)
class OpeningRequest:
    """The data of the opening request that later token checks need."""

    address: str
    parameters: Mapping[str, list[str]]

    def header(self, name: bytes) -> str | None:
        return None


class StreamFactory(SocketFactory):
    """The shared data of the sockets: their options, and the message that was framed last.

    All members of a room are sent the same message, one after the other.
    """

    def __init__(self, reactor: IReactorTime, settings: WebSocketSettings) -> None:
        # Frames are read up to twice the limit, so that the client gets an error.
        super().__init__(
            reactor, max_message=2 * settings.max_frame, ping_interval=settings.ping_interval
        )
        self.autoPingTimeout = ceil(2 * settings.ping_interval)
        self.send_buffer = settings.send_buffer
        self._framed = (b"", b"")
        self._deflated = (b"", 0, b"")

    def framed(self, text: bytes) -> bytes:
        """A text message as a frame."""
        if text != self._framed[0]:
            self._framed = (text, self.prepareMessage(text).payloadHybi)
        return self._framed[1]

    def deflated(self, text: bytes, window_bits: int) -> bytes:
        """The payload of a compressed message, without context takeover.

        Spec: https://www.rfc-editor.org/rfc/rfc7692#section-7.2.1
        """
        if (text, window_bits) != self._deflated[:2]:
            compressor = zlib.compressobj(COMPRESSION_LEVEL, wbits=-window_bits)
            data = compressor.compress(text) + compressor.flush(zlib.Z_SYNC_FLUSH)
            self._deflated = (text, window_bits, data[:-4])
        return self._deflated[2]


@implementer(IPushProducer)
class StreamSocket(Socket):
    """A client's socket. `make_session` makes the session that it forwards to.

    It is the push producer of its transport, which notifies it when the buffer fills and when it is
    empty.
    """

    factory: StreamFactory
    transport: Any
    utf8validateIncoming = False  # the JSON decoder does that

    def __init__(
        self,
        make_session: Callable[["StreamSocket"], StreamSession],
        connections: StreamConnections,
    ) -> None:
        super().__init__()
        self._session = make_session(self)
        self._connections = connections
        self._window_bits = 0
        self._is_full = False
        self._unsent = 0  # bytes, at most, beyond the transport's own buffer
        self._may_read = True

    def onOpen(self) -> None:
        for extension in self.websocket_extensions_in_use:
            self._window_bits = extension.server_max_window_bits
        self.transport.registerProducer(self, True)
        self._connections.add(self._session)
        self._session.open()

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self._session.receive(payload, not isBinary)

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        self._connections.remove(self._session)
        self._session.end()

    def send_text(self, text: bytes) -> None:
        """Send a message."""
        if self.state != self.STATE_OPEN:
            return
        if self._window_bits and len(text) >= COMPRESS_FROM:
            data = self.factory.deflated(text, self._window_bits)
            self.sendFrame(opcode=TEXT_FRAME, payload=data, rsv=COMPRESSED)
        else:
            data = self.factory.framed(text)
            write_now(self.transport, data)
        if self._is_full:
            self._unsent += len(data)
            if self._unsent > self.factory.send_buffer:
                self._session.block()
                self._read_or_wait()

    def close(self, code: int, reason: str) -> None:
        """Begin the closing handshake."""
        if self.state == self.STATE_OPEN:
            self.sendCloseFrame(code, reason.encode())

    def set_reading(self, wanted: bool) -> None:
        """Read from the client, or pause reading."""
        self._may_read = wanted
        self._read_or_wait()

    def pauseProducing(self) -> None:
        """The transport's buffer is full."""
        self._is_full = True

    def resumeProducing(self) -> None:
        """The transport's buffer is empty again."""
        self._is_full = False
        self._unsent = 0
        self._read_or_wait()
        self._session.unblock()

    def stopProducing(self) -> None:
        """The connection is lost."""

    def _read_or_wait(self) -> None:
        # A client that does not read its responses may make no more calls.
        if self._may_read and self._unsent <= 2 * self.factory.send_buffer:
            self.transport.resumeProducing()
        else:
            self.transport.pauseProducing()


class StreamApi:
    """`GET /stream`, the WebSocket."""

    def __init__(
        self,
        settings: WebSocketSettings,
        factory: StreamFactory,
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
        socket = StreamSocket(partial(StreamSession, opening, self._services), self._connections)
        return Upgrade(self._factory, socket, (SUBPROTOCOL,))

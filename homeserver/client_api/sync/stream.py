"""Sync and calls over a WebSocket: the sockets of the endpoint in `stream_api.py`.

The socket class only forwards to a `StreamSession` and sends bytes cheaply: a message to many
sockets is framed once for all of them, and compressed once if it is long and they negotiated that.
`docs/websocket.md` describes the protocol for authors of clients.

Spec: https://spec.matrix.org/v1.19/client-server-api/#syncing
"""

import zlib
from collections.abc import Callable
from math import ceil
from typing import Any

from twisted.internet.interfaces import IPushProducer, IReactorTime
from zope.interface import implementer

from homeserver.client_api.sync.stream_connections import StreamConnections
from homeserver.client_api.sync.stream_session import StreamSession
from homeserver.config.sections.limits import WebSocketSettings
from homeserver.web.websocket import Socket, SocketFactory
from homeserver.web.writing import write_now

TEXT_FRAME = 1
COMPRESSED = 4  # the reserved bit that permessage-deflate uses, RFC 7692, 6
COMPRESS_FROM = 1_400  # bytes; a message that fits into a packet gains nothing
COMPRESSION_LEVEL = 3  # of 9


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

"""WebSockets on the port of the HTTP API: autobahn's protocol, and the change to it.

Autobahn gets a cleaned copy of the request, which has passed all checks (`socket_upgrades.py`) and
has no token. It is large: this module is imported when the first WebSocket is opened.

Spec: https://www.rfc-editor.org/rfc/rfc6455#section-4.2
"""

from collections.abc import Sequence
from functools import partial
from io import BytesIO
from types import SimpleNamespace
from typing import Any

from autobahn.twisted.resource import WebSocketResource
from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.compress import PerMessageDeflateOffer, PerMessageDeflateOfferAccept
from autobahn.websocket.types import ConnectionRequest
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers

from homeserver.protocol.errors import InvalidParam
from homeserver.web.authentication import TOKEN_SUBPROTOCOL
from homeserver.web.request import Request
from homeserver.web.socket_upgrades import Upgrade, header_entries

MAX_REASON = 123  # bytes, RFC 6455, 5.5
# Checked here, or secret.
_NOT_PASSED_ON = {b"authorization", b"origin", b"sec-websocket-protocol"}


class Socket(WebSocketServerProtocol):
    """A WebSocket connection. Subclasses forward `onOpen`, `onMessage` and `onClose`."""

    def onConnect(self, request: ConnectionRequest) -> str | None:
        protocols: list[str] = request.protocols
        return protocols[0] if protocols else None

    def end(self, code: int, reason: str = "") -> None:
        """Close with any code of RFC 6455, 7.4, or above 3000; `reason` is truncated if needed.

        Autobahn's `sendClose` refuses the codes for servers, such as 1001 and 1012.
        """
        text = reason.encode()[:MAX_REASON].decode(errors="ignore").encode()
        WebSocketServerProtocol.sendCloseFrame(self, code=code, reasonUtf8=text or None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        WebSocketServerProtocol.connectionLost(self, reason)
        # Autobahn does not cancel it, and it keeps the protocol in memory.
        waiting: Any = self.closeHandshakeTimeoutCall
        if waiting is not None:
            self.closeHandshakeTimeoutCall = None
            waiting.cancel()


class SocketFactory(WebSocketServerFactory):
    """The configuration of one endpoint's WebSockets.

    `max_message` (bytes) bounds what a client may send in one message, compressed or not; a peer
    that leaves a ping unanswered for `ping_interval` seconds is dropped.
    """

    noisy = False

    def __init__(self, reactor: IReactorTime, *, max_message: int, ping_interval: float) -> None:
        WebSocketServerFactory.__init__(self, server="", reactor=reactor)
        WebSocketServerFactory.setProtocolOptions(
            self,
            maxMessagePayloadSize=max_message,
            maxFramePayloadSize=max_message,
            autoPingInterval=ping_interval,
            autoPingTimeout=ping_interval,
            failByDrop=False,  # the client gets the reason for closing
            closeHandshakeTimeout=5,
            allowNullOrigin=True,
            perMessageCompressionAccept=partial(_accept_compression, max_message),
        )


def upgrade(request: Request, wanted: Upgrade) -> None:
    """Hand the connection over. Raises `InvalidParam` if no subprotocol matches."""
    subprotocol = _choose(wanted.subprotocols, header_entries(request, b"Sec-WebSocket-Protocol"))
    transport, unread = request.connection.hand_over()
    wanted.socket.factory = wanted.factory
    handshake = _Handshake(request, transport, subprotocol, unread)
    WebSocketResource(_Prepared(wanted.socket)).render(handshake)


class _Handshake:
    """The request that autobahn gets: it parses and answers the handshake itself.

    Attributes have the names that they have in Twisted's request; `content` is what the client has
    sent after the handshake.
    """

    def __init__(
        self, request: Request, transport: Any, subprotocol: str | None, content: bytes
    ) -> None:
        self.method = request.method
        self.uri = request.path
        self.transport = transport
        self.channel = SimpleNamespace(transport=transport)
        self.content = BytesIO(content)
        self.requestHeaders = headers = Headers()
        for name, values in request.fields.items():
            if name not in _NOT_PASSED_ON:
                headers.setRawHeaders(name, values)
        headers.setRawHeaders(b"Host", [b"localhost"])
        if subprotocol is not None:
            headers.setRawHeaders(b"Sec-WebSocket-Protocol", [subprotocol.encode()])


class _Prepared:
    """A factory that returns an existing protocol."""

    def __init__(self, socket: Socket) -> None:
        self._socket = socket

    def buildProtocol(self, address: IAddress) -> Socket:
        return self._socket


def _choose(spoken: Sequence[str], offered: list[str]) -> str | None:
    if not spoken:
        return None
    for subprotocol in spoken:
        if subprotocol in offered:
            return subprotocol
    names = ", ".join(spoken)
    known = [entry for entry in offered if not entry.startswith(TOKEN_SUBPROTOCOL)]
    raise InvalidParam(f"The subprotocol must be one of: {names}; offered: {', '.join(known)}")


def _accept_compression(max_message: int, offers: list[Any]) -> PerMessageDeflateOfferAccept | None:
    # Without context take-over no state is kept between messages, so an idle connection stays
    # small.
    for offer in offers:
        if isinstance(offer, PerMessageDeflateOffer) and offer.accept_no_context_takeover:
            return PerMessageDeflateOfferAccept(
                offer,
                request_no_context_takeover=True,
                no_context_takeover=True,
                max_message_size=max_message,
            )
    return None

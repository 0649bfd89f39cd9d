"""Transactions by WebSocket: the protocol `fi.mau.as_sync`, as bridges behind NAT speak it.

Messages are objects in text frames. The server sends `connect`, and then transactions: their fields
are those of the HTTP API, with `id`, `command`, `status` and `txn_id` beside them. The application
service answers each with `{"id": …, "command": "response"}`, or `"error"`; without an answer the
connection is closed, and the transaction is sent again. It may send `ping` itself.

This is version 3 of the protocol, which no specification has; it is described in
docs/appservices.md.
"""

from typing import Any, Protocol

import msgspec
from autobahn.twisted.websocket import WebSocketServerProtocol
from autobahn.websocket.protocol import WebSocketProtocol
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from appservices.transactions.delivery import (
    AppserviceTransaction,
    NotDelivered,
    TransactionDelivery,
)
from homeserver.concurrency.clock import Clock, now_ms
from homeserver.protocol.appservices.appservice import Appservice
from homeserver.web.websocket import Socket, SocketFactory

ACKNOWLEDGE_SECONDS = 60.0
PING_SECONDS = 30.0
MAX_MESSAGE = 262_144  # bytes
RESTART, REPLACED, NOT_ACKNOWLEDGED = 1012, 4001, 4002
STATUSES = {
    RESTART: "server_shutting_down",
    REPLACED: "conn_replaced",
    NOT_ACKNOWLEDGED: "transactions_not_acknowledged",
}
_encode = msgspec.json.Encoder().encode
log = Logger()


class Command(msgspec.Struct):
    """A message of an application service."""

    command: str
    id: int = 0
    data: Any = None


class AppserviceConnections(Protocol):
    """What keeps the open connections."""

    def opened(self, socket: "AppserviceSocket") -> None: ...

    def closed(self, socket: "AppserviceSocket") -> None: ...


def socket_factory(reactor: IReactorTime) -> SocketFactory:
    """The configuration of these WebSockets."""
    return SocketFactory(reactor, max_message=MAX_MESSAGE, ping_interval=PING_SECONDS)


class AppserviceSocket(Socket):
    """One connection of an application service."""

    def __init__(
        self,
        appservice_id: str,
        delivery: TransactionDelivery,
        clock: Clock,
        connections: AppserviceConnections,
    ) -> None:
        super().__init__()
        self.appservice_id = appservice_id
        self._delivery = delivery
        self._clock = clock
        self._connections = connections
        self._requests = 0
        self._unanswered: tuple[int, Deferred[None]] | None = None

    async def deliver(self, appservice: Appservice, transaction: AppserviceTransaction) -> None:
        """Send a transaction. Raises `NotDelivered`."""
        if self.state != self.STATE_OPEN:
            raise NotDelivered("its WebSocket is closed")
        self._requests += 1
        answered: Deferred[None] = Deferred()
        self._unanswered = self._requests, answered
        head = _encode(
            {
                "id": self._requests,
                "command": "transaction",
                "status": "ok",
                "txn_id": transaction.txn_id,
            }
        )
        self._send_text(head[:-1] + b"," + transaction.body[1:])
        timeout = self._clock.callLater(ACKNOWLEDGE_SECONDS, self.close_with, NOT_ACKNOWLEDGED)
        try:
            await answered
        finally:
            self._unanswered = None
            if timeout.active():
                timeout.cancel()

    def close_with(self, code: int) -> None:
        """Close the connection; the reason is JSON."""
        reason = _encode({"command": "disconnect", "status": STATUSES[code]}).decode()
        self.end(code, reason)
        self._answer(NotDelivered(f"its WebSocket was closed: {STATUSES[code]}"))

    def close_as_replaced(self) -> None:
        """Close the connection: there is another one, or the application service is gone."""
        self.close_with(REPLACED)

    def close_for_restart(self) -> None:
        """Close the connection: the server stops."""
        self.close_with(RESTART)

    def onOpen(self) -> None:
        """Use this connection from now on."""
        self._send_command({"id": 0, "command": "connect", "status": "ok", "data": {}})
        self._connections.opened(self)
        self._delivery.use_socket(self)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        """Handle an answer or a command; what is not valid closes the connection."""
        try:
            message = msgspec.json.decode(payload, type=Command)
        except (msgspec.DecodeError, ValueError):
            self.end(WebSocketProtocol.CLOSE_STATUS_CODE_INVALID_PAYLOAD, "not a command")
            return
        if message.command in ("response", "error"):
            self._answered(message)
        elif message.command == "ping":
            self._respond(message, "response", {"timestamp": now_ms(self._clock)})
        else:
            text = f"The server does not know the command {message.command!r}"
            self._respond(message, "error", {"code": "M_UNRECOGNIZED", "message": text})

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        """The connection is closed: what was not acknowledged is sent again."""
        self._connections.closed(self)
        self._delivery.socket_closed(self)
        self._answer(NotDelivered("its WebSocket was closed"))

    def _answered(self, message: Command) -> None:
        if self._unanswered is None or self._unanswered[0] != message.id:
            return
        if message.command == "response":
            self._answer(None)
        else:
            self._answer(NotDelivered(f"it answered with an error: {str(message.data)[:200]}"))

    def _answer(self, error: NotDelivered | None) -> None:
        if self._unanswered is not None:
            answered = self._unanswered[1]
            self._unanswered = None
            if error is None:
                answered.callback(None)
            else:
                answered.errback(error)

    def _respond(self, message: Command, command: str, data: Any) -> None:
        if message.id:
            self._send_command({"id": message.id, "command": command, "data": data})

    def _send_command(self, message: Any) -> None:
        if self.state == self.STATE_OPEN:
            self._send_text(_encode(message))

    def _send_text(self, text: bytes) -> None:
        WebSocketServerProtocol.sendMessage(self, text)

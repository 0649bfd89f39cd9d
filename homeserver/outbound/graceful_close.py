"""Connections that end in bounded time, even if the peer does not cooperate.

A TLS connection that this server closes waits for the peer's close notification. If a peer never
sends one, open connections would accumulate, so they are aborted after a while. A peer that keeps
sending as fast as it can would keep this server busy until then, so its connection is aborted at
once.

Spec: https://spec.matrix.org/v1.19/server-server-api/#tls
"""

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IProtocolFactory
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory

LINGER_SECONDS = 5.0
MAX_LATE_BYTES = 65_536  # bytes that may be in transit when a connection is closed


class ConnectionTracker:
    """The set of all connections that were made through the factories of `wrap`."""

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self._connections: set[Connection] = set()
        self._ended: Deferred[None] | None = None

    def __len__(self) -> int:
        return len(self._connections)

    def wrap(self, factory: IProtocolFactory) -> "ClosingFactory":
        """A factory of connections for the protocols that `factory` makes."""
        quiet: Any = factory
        quiet.noisy = False  # or each connection would be logged twice
        return ClosingFactory(self, factory)

    def made(self, connection: "Connection") -> None:
        """Record a new connection."""
        self._connections.add(connection)

    def lost(self, connection: "Connection") -> None:
        """Remove a connection that has ended."""
        self._connections.discard(connection)
        if self._ended is not None and not self._connections:
            ended, self._ended = self._ended, None
            ended.callback(None)

    async def end(self) -> None:
        """Abort all connections."""
        if self._connections:
            self._ended = ended = Deferred[None]()
            for connection in list(self._connections):
                connection.abort()
            await ended


class Connection(ProtocolWrapper):
    """One connection: the transport of the protocol that uses it."""

    open_connections: ConnectionTracker
    _timer: Any = None
    _is_lost = False
    _late = 0

    def makeConnection(self, transport: Any) -> None:
        self.open_connections.made(self)
        super().makeConnection(transport)  # type: ignore[no-untyped-call]

    def loseConnection(self) -> None:
        super().loseConnection()  # type: ignore[no-untyped-call]
        # A protocol that is notified of the lost connection may close it once more.
        if self._timer is None and not self._is_lost:
            reactor = self.open_connections.reactor
            self._timer = reactor.callLater(LINGER_SECONDS, self.abort)

    def dataReceived(self, data: bytes) -> None:
        if self._timer is None:
            super().dataReceived(data)  # type: ignore[no-untyped-call]
            return
        self._late += len(data)
        if self._late > MAX_LATE_BYTES and not self._is_lost:
            self.abort()

    def connectionLost(self, reason: Any = None) -> None:
        self._is_lost = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        super().connectionLost(reason)  # type: ignore[no-untyped-call]
        self.open_connections.lost(self)

    def abort(self) -> None:
        """End at once."""
        transport: Any = self.transport
        transport.abortConnection()


class ClosingFactory(WrappingFactory[Connection]):
    """A factory of connections that are recorded in `open_connections`."""

    noisy = False

    def __init__(self, open_connections: ConnectionTracker, wrapped: IProtocolFactory) -> None:
        super().__init__(wrapped)  # type: ignore[no-untyped-call]
        self._open_connections = open_connections

    def buildProtocol(self, addr: IAddress | None) -> Connection:
        wrapped: Any = self.wrappedFactory
        connection = Connection(self, wrapped.buildProtocol(addr))
        connection.open_connections = self._open_connections
        return connection

"""Connections end once: neither late, nor twice."""

from twisted.internet.error import ConnectionLost
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from homeserver.outbound.graceful_close import LINGER_SECONDS, MAX_LATE_BYTES, ConnectionTracker


class Transport(StringTransport):
    """A transport that counts its aborts; the peer never closes."""

    cuts = 0

    def abortConnection(self) -> None:
        """Count an abort."""
        self.cuts += 1


class ClosesWhatIsLost(Protocol):
    """A protocol that closes its connection on the loss of it, as the HTTP client does."""

    def connectionLost(self, reason: object = None) -> None:
        assert self.transport is not None
        self.transport.loseConnection()


class ClosingTests(SynchronousTestCase):
    """One connection."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.open = ConnectionTracker(self.clock)
        factory = self.open.wrap(Factory.forProtocol(ClosesWhatIsLost))
        self.connection = factory.buildProtocol(None)
        self.transport = Transport()  # type: ignore[no-untyped-call]
        self.connection.makeConnection(self.transport)

    def test_peer_that_never_closes_is_aborted(self) -> None:
        """Servers that keep connections half open do not use up local ones."""
        self.connection.loseConnection()
        self.clock.advance(LINGER_SECONDS)
        assert self.transport.cuts == 1

    def test_lost_connection_is_not_aborted_again(self) -> None:
        """A TLS connection that has ended cannot be aborted: that would be an error."""
        self.connection.connectionLost(Failure(ConnectionLost()))
        self.clock.advance(LINGER_SECONDS)
        assert self.transport.cuts == 0
        assert len(self.open) == 0

    def test_peer_that_keeps_sending_is_aborted_at_once(self) -> None:
        """A response that is too large is not received to its end, only to be discarded."""
        self.connection.dataReceived(b"x" * 2 * MAX_LATE_BYTES)
        self.connection.loseConnection()
        self.connection.dataReceived(b"x" * MAX_LATE_BYTES)
        assert self.transport.cuts == 0

        self.connection.dataReceived(b"x")

        assert self.transport.cuts == 1

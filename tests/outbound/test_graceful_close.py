"""Connections end once: neither later than they should, nor a second time."""

from twisted.internet.error import ConnectionLost
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from homeserver.outbound.graceful_close import LINGER_SECONDS, MAX_LATE_BYTES, ConnectionTracker


class Transport(StringTransport):
    """Counts how often it is cut; the other side never says good-bye."""

    cuts = 0

    def abortConnection(self) -> None:
        """Cut it."""
        self.cuts += 1


class ClosesWhatIsLost(Protocol):
    """Closes its connection when it is told that it is lost, as the HTTP client does."""

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

    def test_who_never_says_good_bye_is_cut_off(self) -> None:
        """Servers that keep connections half open do not use up ours."""
        self.connection.loseConnection()
        self.clock.advance(LINGER_SECONDS)
        assert self.transport.cuts == 1

    def test_what_is_lost_is_not_cut_any_more(self) -> None:
        """A connection of TLS that has ended has nothing left to cut: that would be an error."""
        self.connection.connectionLost(Failure(ConnectionLost()))
        self.clock.advance(LINGER_SECONDS)
        assert self.transport.cuts == 0
        assert len(self.open) == 0

    def test_who_sends_on_after_the_end_is_cut_off_at_once(self) -> None:
        """An answer that is too large is not received to its end, only to throw it away."""
        self.connection.dataReceived(b"x" * 2 * MAX_LATE_BYTES)
        self.connection.loseConnection()
        self.connection.dataReceived(b"x" * MAX_LATE_BYTES)
        assert self.transport.cuts == 0

        self.connection.dataReceived(b"x")

        assert self.transport.cuts == 1

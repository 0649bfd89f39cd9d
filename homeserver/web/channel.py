"""A client's connection: Twisted's HTTP/1.1 parser, with deadlines for slow senders.

A connection may idle for `idle_timeout` seconds between requests. From its first byte on, a request
must arrive within `request_timeout`; a large body gets as much again for each received 64 KiB, so
that an upload over a slow line succeeds and one byte a minute does not. There is no deadline while
a handler runs. A client that reads its response slowly is not idle either, as long as it reads 64
KiB in each `idle_timeout`.

One timer serves a connection: it sleeps until the earliest deadline, and then checks the present
deadline. So postponing a deadline, as each request does, costs an assignment and no timer.
"""

import math
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.protocols.basic import LineReceiver
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.http import Request as TwistedRequest

from homeserver.web.addresses import TrustedProxies, peer_text

PROGRESS = 65_536  # bytes that give a slow client more time


class Channel(HTTPChannel):
    """One connection. Times are in seconds.

    `peer` is the address of the peer ("" for a Unix socket), `trusted` whether that is a proxy
    which may set the client's address. An open channel is in `connections`.
    """

    peer = ""
    trusted = False
    _receiving = False
    _received = 0
    _unsent = math.inf
    _timer: IDelayedCall | None = None
    _timer_at = 0.0
    _deadline: float | None = None

    def __init__(
        self,
        clock: IReactorTime,
        proxies: TrustedProxies,
        connections: "set[Channel]",
        *,
        idle_timeout: float,
        request_timeout: float,
    ) -> None:
        HTTPChannel.__init__(self)
        self._clock = clock
        self.proxies = proxies
        self._connections = connections
        self._idle_timeout = idle_timeout
        self.timeOut = idle_timeout  # type: ignore[assignment]  # fractions are fine
        self._request_timeout = request_timeout

    def connectionMade(self) -> None:
        self.peer = peer_text(HTTPChannel.getPeer(self))
        self.trusted = self.proxies.trusts(self.peer)
        self._connections.add(self)
        HTTPChannel.connectionMade(self)

    def callLater(self, period: float, func: Callable[[], object]) -> IDelayedCall:
        return self._clock.callLater(period, func)

    def dataReceived(self, data: bytes) -> None:
        if not self._receiving:
            self._receiving = True
            self._received = 0
            self.setTimeout(self._request_timeout)
        elif self.timeOut is not None:
            self._received += len(data)
            if self._received >= PROGRESS:
                self._received = 0
                self.setTimeout(self._request_timeout)
        LineReceiver.dataReceived(self, data)

    def requestDone(self, request: TwistedRequest) -> None:
        self._receiving = False
        self._savedTimeOut = self._idle_timeout
        self._unsent = math.inf
        HTTPChannel.requestDone(self, request)

    def setTimeout(self, period: float | None) -> float | None:
        """Close the connection after `period` from now; `None` removes the deadline."""
        previous: float | None = self.timeOut
        self.timeOut = period  # type: ignore[assignment]
        if period is None:
            self._deadline = None
            return previous
        self._deadline = deadline = self._clock.seconds() + period
        if self._timer is None or deadline < self._timer_at:
            self.release()
            self._timer_at = deadline
            self._timer = self._clock.callLater(period, self._check_deadline)
        return previous

    def timeoutConnection(self) -> None:
        self._abortingCall = self._clock.callLater(self.abortTimeout, self.forceAbortClient)
        HTTPChannel.loseConnection(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.release()
        self._connections.discard(self)
        HTTPChannel.connectionLost(self, reason)

    def release(self) -> None:
        """Cancel the timer: the connection has ended, or was handed over."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def expect_reading(self, *, is_awaited: bool) -> None:
        """Begin or end the deadline for a client that must read before it gets more."""
        self._unsent = math.inf
        self.setTimeout(self._idle_timeout if is_awaited else None)

    def pause_reading(self) -> None:
        """Receive nothing more for now: the handler is slower than the client."""
        self._networkProducer.pauseProducing()
        self._deadline = None

    def resume_reading(self) -> None:
        """Continue after `pause_reading`, with a whole new deadline."""
        if self not in self._connections:
            return  # the connection was lost meanwhile
        if not self._waitingForTransport:
            self._networkProducer.resumeProducing()
        if self._receiving and self.timeOut is not None:
            self.setTimeout(self.timeOut)

    def close_when_idle(self) -> None:
        """Close now, or after the response in progress."""
        if self.requests:
            self.persistent = 0
        else:
            HTTPChannel.loseConnection(self)

    def abort(self) -> None:
        """Abort the connection."""
        transport: Any = self.transport
        if transport is not None:
            transport.abortConnection()

    def _is_reading(self) -> bool:
        """Whether responses are still being sent, and have progressed since the last call."""
        # The socket is below TLS, if there is any.
        socket: Any = getattr(self.transport, "transport", self.transport)
        before, self._unsent = self._unsent, len(socket.dataBuffer) - socket.offset
        self._unsent += socket._tempDataLen
        return 0 < self._unsent <= before - PROGRESS

    def _check_deadline(self) -> None:
        self._timer = None
        if self._deadline is None:
            return
        left = self._deadline - self._clock.seconds()
        if left <= 0 and self._is_reading():
            self.setTimeout(self._idle_timeout)
        elif left <= 0:
            self.timeoutConnection()
        else:
            self._timer_at = self._deadline
            self._timer = self._clock.callLater(left, self._check_deadline)

"""A client's connection: requests one after the other, with deadlines for slow senders.

HTTP/1.1, as far as a server of an API needs it: connections persist, and a client may send
further requests before it has the response to the first (they wait until it is sent); bodies have
a length or come in chunks; a client may wait for "100 Continue".

A connection may idle for `idle_timeout` seconds between requests. From its first byte on, a request
must arrive within `request_timeout`; a large body gets as much again for each received 64 KiB, so
that an upload over a slow line succeeds and one byte a minute does not. There is no deadline while
a handler runs. A client that reads its response slowly is not idle either, as long as it reads 64
KiB in each `idle_timeout`. No request is read while the responses to former ones fill the buffers.

One timer serves a connection: it sleeps until the earliest deadline, and then checks the present
deadline. So postponing a deadline, as each request does, costs an assignment and no timer.

Spec: https://www.rfc-editor.org/rfc/rfc9112
"""

import math
from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime, ITCPTransport
from twisted.internet.protocol import Protocol as ByteProtocol
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import _ChunkedTransferDecoder, _MalformedChunkedDataError
from zope.interface import implementer

from homeserver.web.addresses import TrustedProxies, peer_text
from homeserver.web.connection.request_heads import (
    HEAD_END,
    MAX_HEAD,
    HeadReader,
    MalformedRequest,
    RequestHead,
)

PROGRESS = 65_536  # bytes that give a slow client more time
MAX_AHEAD = 16_384  # bytes of later requests that are read while one is handled
ABORT_SECONDS = 15.0  # for a connection that is closed to end by itself
BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class ReceivedRequest(Protocol):
    """A request, as the channel sees it. The channel calls these methods in this order."""

    @property
    def is_refused(self) -> bool:
        """Whether the body is read only to be discarded."""

    @property
    def has_begun(self) -> bool:
        """Whether a part of the response was written."""

    def head_received(self, length: int | None) -> None:
        """The head is complete; a body of so many bytes follows, or of an unknown number."""

    def body_part(self, data: bytes) -> None:
        """A part of the body has arrived."""

    def body_ended(self) -> None:
        """The request is complete. It calls `request_done` when its response is sent."""

    def connection_lost(self) -> None:
        """The connection was lost before `request_done`."""


RequestFactory: TypeAlias = Callable[["Channel", RequestHead], Any]


@implementer(IPushProducer)
class Channel(ByteProtocol):
    """One connection. Times are in seconds.

    `peer` is the address of the peer ("" for a Unix socket), `trusted` whether that is a proxy
    which may set the client's address. An open channel is in `connections`. `request` is the
    request that is being received or handled, and `persistent` whether there may be another one
    after it. `producer` is paused while the buffers of the connection are full.
    """

    peer = ""
    trusted = False
    persistent = True
    request: ReceivedRequest | None = None
    producer: Any = None
    _unread = b""
    _left = 0  # bytes of the body
    _chunks: _ChunkedTransferDecoder | None = None
    _is_parsing = False
    _is_handling = False
    _is_receiving = False  # a request has begun, and did not arrive in one piece
    _is_choked = False  # the client does not read its responses
    _is_paused = False
    _is_closing = False
    _received = 0
    _unsent = math.inf
    _period: float | None = None
    _timer: IDelayedCall | None = None
    _timer_at = 0.0
    _deadline: float | None = None
    _aborting: IDelayedCall | None = None

    def __init__(
        self,
        clock: IReactorTime,
        proxies: TrustedProxies,
        connections: "set[Channel]",
        make_request: RequestFactory,
        *,
        idle_timeout: float,
        request_timeout: float,
    ) -> None:
        self._clock = clock
        self.proxies = proxies
        self._connections = connections
        self._make_request = make_request
        self._idle_timeout = idle_timeout
        self._request_timeout = request_timeout
        self._heads = HeadReader()

    def connectionMade(self) -> None:
        transport: Any = self.transport
        self.peer = peer_text(transport.getPeer())
        self.trusted = self.proxies.trusts(self.peer)
        self._connections.add(self)
        if ITCPTransport.providedBy(transport):
            transport.setTcpNoDelay(True)
        transport.registerProducer(self, True)
        self.set_timeout(self._idle_timeout)

    def dataReceived(self, data: bytes) -> None:
        if self._is_closing:
            return
        self._unread = self._unread + data if self._unread else data
        if self._is_handling:
            if len(self._unread) > MAX_AHEAD:
                self._pause()
            return
        if self._is_receiving and self._period is not None:
            self._received += len(data)
            if self._received >= PROGRESS:
                self._received = 0
                self.set_timeout(self._request_timeout)
        self._parse()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._is_closing = True
        self.release()
        self._connections.discard(self)
        if self._aborting is not None:
            self._aborting.cancel()
            self._aborting = None
        if self.request is not None:
            self.request.connection_lost()

    def request_done(self) -> None:
        """The response to the request was sent; the next request may be read."""
        self.request = None
        self._is_handling = self._is_receiving = False
        self._unsent = math.inf
        if not self.persistent:
            self.close()
            return
        self.set_timeout(self._idle_timeout)
        if self._is_choked:
            self._pause()
        else:
            self._resume()
            self._parse()

    def set_timeout(self, period: float | None) -> None:
        """Close the connection after `period` from now; `None` removes the deadline."""
        self._period = period
        if period is None:
            self._deadline = None
            return
        self._deadline = deadline = self._clock.seconds() + period
        if self._timer is None or deadline < self._timer_at:
            self.release()
            self._timer_at = deadline
            self._timer = self._clock.callLater(period, self._check_deadline)

    def release(self) -> None:
        """Cancel the timer: the connection has ended, or was handed over."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def hand_over(self) -> tuple[Any, bytes]:
        """Give the transport up to another protocol, with the bytes that were read for it."""
        transport: Any = self.transport
        self.release()
        transport.unregisterProducer()
        self._connections.discard(self)
        self._is_closing = True
        self.request = None
        unread, self._unread = self._unread, b""
        return transport, unread

    def expect_reading(self, *, is_awaited: bool) -> None:
        """Begin or end the deadline for a client that must read before it gets more."""
        self._unsent = math.inf
        self.set_timeout(self._idle_timeout if is_awaited else None)

    def pause_reading(self) -> None:
        """Receive nothing more for now: the handler is slower than the client."""
        self._pause()
        self._deadline = None

    def resume_reading(self) -> None:
        """Continue after `pause_reading`, with a whole new deadline."""
        if self not in self._connections:
            return  # the connection was lost meanwhile
        if not self._is_choked:
            self._resume()
        if not self._is_handling and self._period is not None:
            self.set_timeout(self._period)

    def close_when_idle(self) -> None:
        """Close now, or after the response in progress."""
        if self.request is not None:
            self.persistent = False
        else:
            self.close()

    def close(self) -> None:
        """Close the connection when everything was written; nothing more is read."""
        if self._is_closing:
            return
        self._is_closing = True
        self._unread = b""
        transport: Any = self.transport
        transport.unregisterProducer()
        transport.loseConnection()
        # A client that does not read the rest must not stay.
        if self._aborting is None:
            self.set_timeout(self._idle_timeout)

    def abort(self) -> None:
        """Abort the connection."""
        transport: Any = self.transport
        transport.abortConnection()

    # The transport calls the following methods, according to what is in its buffer.

    def pauseProducing(self) -> None:
        self._is_choked = True
        if self.producer is not None:
            self.producer.pauseProducing()
        if not self._is_handling:
            self._pause()

    def resumeProducing(self) -> None:
        self._is_choked = False
        if self.producer is not None:
            self.producer.resumeProducing()
        if not self._is_handling:
            self._resume()
            self._parse()

    def stopProducing(self) -> None:
        if self.producer is not None:
            self.producer.stopProducing()

    def _parse(self) -> None:
        """Read what was received, up to the end of a request that is not handled at once."""
        if self._is_parsing:
            return  # a response within the loop below, which goes on
        self._is_parsing = True
        try:
            while self._unread and not (self._is_handling or self._is_choked or self._is_closing):
                if self.request is not None:
                    data, self._unread = self._unread, b""
                    self._read_body(data)
                elif not self._read_head():
                    break
        except (MalformedRequest, _MalformedChunkedDataError):
            self._refuse()
        finally:
            self._is_parsing = False

    def _read_head(self) -> bool:
        """Begin a request; false if its head is not complete yet."""
        data = self._unread
        end = data.find(HEAD_END)
        if end > MAX_HEAD or (end < 0 and len(data) > MAX_HEAD):
            raise MalformedRequest("the head is too large")
        if end < 0:
            self._expect_rest()
            return False
        head = self._heads.read(data[:end])
        self._unread = data[end + 4 :]
        length = head.fields.length
        self.persistent = not (head.is_http_1_0 or head.fields.closes)
        self.request = request = self._make_request(self, head)
        if length is None:
            self._chunks = _ChunkedTransferDecoder(request.body_part, self._chunks_ended)
        else:
            self._left = length
        if length is None or length > len(self._unread):
            self._expect_rest()
        request.head_received(length)
        if length == 0:
            self._end_body()
        elif head.fields.awaits_continue and not (head.is_http_1_0 or request.is_refused):
            self._write(CONTINUE)
        return True

    def _read_body(self, data: bytes) -> None:
        assert self.request is not None, "a body belongs to a request"
        if self._chunks is not None:
            self._chunks.dataReceived(data)
        elif len(data) < self._left:
            self._left -= len(data)
            self.request.body_part(data)
        else:
            self._unread = data[self._left :]
            self.request.body_part(data[: self._left])
            self._end_body()

    def _chunks_ended(self, rest: bytes) -> None:
        self._unread = rest
        self._chunks = None
        self._end_body()

    def _end_body(self) -> None:
        assert self.request is not None, "a body belongs to a request"
        self._is_handling = True
        self._period = self._deadline = None
        self.request.body_ended()

    def _refuse(self) -> None:
        """Respond to a malformed request, if nothing was, and end the connection."""
        request, self.request = self.request, None
        if request is None or not request.has_begun:
            self._write(BAD_REQUEST)
        self.close()
        if request is not None:
            request.connection_lost()

    def _expect_rest(self) -> None:
        """Begin the deadline of a request that has arrived in part."""
        if not self._is_receiving:
            self._is_receiving = True
            self._received = 0
            self.set_timeout(self._request_timeout)

    def _write(self, data: bytes) -> None:
        transport: Any = self.transport
        transport.write(data)

    def _pause(self) -> None:
        if not (self._is_paused or self._is_closing):
            self._is_paused = True
            transport: Any = self.transport
            transport.pauseProducing()

    def _resume(self) -> None:
        if self._is_paused and not self._is_closing:
            self._is_paused = False
            transport: Any = self.transport
            transport.resumeProducing()

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
            self.set_timeout(self._idle_timeout)
        elif left <= 0:
            self._aborting = self._clock.callLater(ABORT_SECONDS, self._abort_late)
            self.close()
        else:
            self._timer_at = self._deadline
            self._timer = self._clock.callLater(left, self._check_deadline)

    def _abort_late(self) -> None:
        self._aborting = None
        self.abort()

"""One HTTP request: its head and body as values, and its response, written once and in one piece,
or part by part. The body may be a stream, too.

Built on Twisted's request, without what a JSON API never needs: forms, cookies, temporary files.
The sink gets a request as soon as its head has arrived, so that a body which is too large is
refused before it is read, and so is the body of a request that will be refused in any case. Such a
refusal closes the connection, but only after the rest of the body was read and discarded: otherwise
a client that is still sending would never see the response.

The bytes read are counted against a budget for all bodies, in which each address has a share, until
the response is sent.

Spec: https://spec.matrix.org/v1.19/client-server-api/#api-standards
"""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.web import http
from twisted.web.http import HTTPChannel

from homeserver.accounts.sessions.requester import Requester
from homeserver.concurrency.byte_stream import ByteStream
from homeserver.concurrency.memory_budget import Reservation
from homeserver.protocol.errors import LimitExceeded, MatrixError, TooLarge
from homeserver.web.authentication import find_token
from homeserver.web.channel import Channel
from homeserver.web.query import parse_query
from homeserver.web.writing import Pacer, write_now

CLIENT_GONE = 499  # logged, never sent: the client has disconnected
MAX_DRAINED = 16 * 1_048_576  # bytes of a body that are read after its refusal, before the abort
DRAIN_SECONDS = 10.0
RETRY_AFTER_MS = 2_000


class BodyIncomplete(MatrixError):
    """The connection was lost before the end of a streamed body; no client sees this error."""

    errcode, status = "M_UNKNOWN", 400


class RequestSink(Protocol):
    """A receiver of requests."""

    def head_received(self, request: "Request") -> "BodyLimit":
        """The head has arrived: return the limit of the body."""

    def reservation(self, request: "Request") -> Reservation:
        """The reservation of memory for the body."""

    def body_received(self, request: "Request") -> None:
        """The request is complete: handle it."""

    def refuse(self, request: "Request", error: Exception) -> None:
        """Respond with an error."""

    def client_gone(self, request: "Request") -> None:
        """The connection was lost before the response."""


@dataclass(frozen=True, slots=True)
class BodyLimit:
    """The maximum number of bytes of a body, and the error for larger ones.

    With `is_streamed` the request is handled while its body arrives (`routes.py`).
    """

    size: int
    error: Exception
    is_streamed: bool = False


class Request(http.Request):
    """A request and its response.

    `id` is this server's name for it, in logs and in the message of an internal error. `caller` is
    set once the token was checked, `origin` once the signature of a server was. `label` is the path
    pattern of its route, for metrics, `hides_path` whether the log has it, too, in place of the
    path, and `context` belongs to the sink.
    """

    caller: Requester | None = None
    origin: str | None = None
    label = ""
    hides_path = False
    context: Any = None
    content: Any = None
    body = b""
    stream: ByteStream | None = None
    query = b""
    announced: int | None = None  # bytes of the body, according to the head
    running: Deferred[Any] | None = None
    _parameters: dict[str, list[str]] | None = None
    _address: str | None = None
    _limit = BodyLimit(0, TooLarge("The body must be empty"))
    _memory: Reservation | None = None
    _received = 0
    _drained = 0
    _refused = False
    _is_received = False

    def __init__(
        self, connection: Channel, site: RequestSink, request_id: str, started: float
    ) -> None:
        super().__init__(connection)
        self.connection = connection
        self.site = site
        self.id = request_id
        self.started = started
        # One block of memory, which the system gets back: many small ones would leave holes.
        self._buffer = bytearray()

    @property
    def logged_path(self) -> str:
        """The path, or the pattern of its route if it has a secret."""
        return self.label if self.hides_path else self.path.decode("latin-1")

    @property
    def parameters(self) -> dict[str, list[str]]:
        """The query parameters. Raises `InvalidParam` if they are not text."""
        if self._parameters is None:
            self._parameters = parse_query(self.query) if self.query else {}
        return self._parameters

    @property
    def address(self) -> str:
        """The client's IP address, or "" if it is unknown (a Unix socket without a proxy)."""
        if self._address is None:
            connection = self.connection
            self._address = connection.peer
            if connection.trusted:
                forwarded = self.requestHeaders.getRawHeaders(b"X-Forwarded-For")
                if forwarded:
                    texts = [value.decode("latin-1") for value in forwarded]
                    self._address = connection.proxies.client(connection.peer, texts)
        return self._address

    @property
    def disconnected(self) -> bool:
        """Whether the client has disconnected."""
        return self._disconnected

    def header(self, name: bytes) -> str | None:
        """The value of a header, or `None` if it is missing or sent more than once."""
        values = self.requestHeaders.getRawHeaders(name)
        return values[0].decode("latin-1") if values is not None and len(values) == 1 else None

    @property
    def authorizations(self) -> list[str]:
        """The values of all `Authorization` headers: a server may sign with several keys."""
        values = self.requestHeaders.getRawHeaders(b"Authorization") or ()
        return [value.decode("latin-1") for value in values]

    def token(self) -> str | None:
        """The access token. Raises `MissingToken` if it is malformed."""
        headers = self.requestHeaders
        return find_token(
            headers.getRawHeaders(b"Authorization"),
            self.query,
            headers.getRawHeaders(b"Sec-WebSocket-Protocol"),
        )

    def send(self, status: int, head: bytes, body: bytes) -> None:
        """Write the response: `head` is the status line and all headers, with the empty line."""
        if self._disconnected:
            return
        self.code = status
        self.sentLength = 0 if self.method == b"HEAD" else len(body)
        write_now(self.connection.transport, head + body if self.sentLength else head)
        self.startedWriting = 1
        if not self._refused:
            http.Request.finish(self)

    def begin(self, status: int, head: bytes, *, chunked: bool) -> None:
        """Write the head of a response whose parts follow by `send_parts`."""
        self.code = status
        self.chunked = chunked and self.method != b"HEAD"
        self.sentLength = 0
        self.startedWriting = 1
        write_now(self.connection.transport, head)

    async def send_parts(self, first: bytes, rest: AsyncGenerator[bytes, None]) -> bool:
        """Write the parts of a response that was begun; false if the client left before the end.

        Each part is written when the client has read the former ones. A client that does not read
        is disconnected by the channel's deadline.
        """
        pacer = Pacer()
        # A connection that the channel has begun to close does not notify its producer any more.
        self.notifyFinish().addBoth(lambda _: pacer.stopProducing())
        http.Request.registerProducer(self, pacer, True)
        try:
            http.Request.write(self, first)
            while True:
                if pacer.is_paused:
                    self.connection.expect_reading(is_awaited=True)
                    await pacer.resumed()
                    self.connection.expect_reading(is_awaited=False)
                part = None if self._disconnected else await anext(rest, None)
                if part is None:
                    break
                http.Request.write(self, part)
        finally:
            if not self._disconnected:
                http.Request.unregisterProducer(self)
        if self._disconnected:
            return False
        http.Request.finish(self)
        return True

    @property
    def is_http_1_0(self) -> bool:
        """Whether the client knows no chunks."""
        return self.clientproto == b"HTTP/1.0"

    def release_body(self) -> None:
        """Discard the body, and release the memory that was reserved for it.

        If a part of it is still to come, the connection ends after the response.
        """
        self.body = b""
        self._buffer = bytearray()
        if self._memory is not None:
            self._memory.release()
        if self.stream is not None and not self._is_received and not self._disconnected:
            self._stop_stream(BodyIncomplete("The request was handled without its whole body"))

    # The channel calls the following methods, in this order.

    def parseCookies(self) -> None:
        """Do nothing: Matrix has no cookies."""

    def gotLength(self, length: int | None) -> None:
        connection = self.connection
        # The channel passes method and path on only with the body: too late to refuse it.
        self.method = connection._command
        self.uri = connection._path
        self.path, _, self.query = _origin_form(self.uri).partition(b"?")
        self.announced = length
        self._limit = self.site.head_received(self)
        if length is not None and length > self._limit.size:
            self._refuse_body(self._limit.error)
        elif self._limit.is_streamed:
            connection = self.connection
            self.clientproto = connection._version
            self.stream = ByteStream(length, connection.pause_reading, connection.resume_reading)
            self.site.body_received(self)

    def handleContentChunk(self, data: bytes) -> None:
        self._received += len(data)
        if self._refused:
            self._drained += len(data)
            if self._drained > MAX_DRAINED:
                HTTPChannel.loseConnection(self.connection)
        elif self.stream is not None:
            if self._received > self._limit.size:
                self._stop_stream(self._limit.error)
            else:
                self.stream.feed(data)
        elif self._received > self._limit.size:
            self._refuse_body(self._limit.error)
        elif not self._reserve(len(data)):
            self._refuse_body(no_room())
        else:
            self._buffer += data

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        self._is_received = True
        if self._refused:
            self._end_refused()
            return
        if self.stream is not None:
            self.stream.end()
            return
        self.clientproto = version
        self.body, self._buffer = bytes(self._buffer), bytearray()
        self.site.body_received(self)

    def connectionLost(self, reason: Failure) -> None:
        http.Request.connectionLost(self, reason)
        if self.stream is not None:
            self.stream.fail(BodyIncomplete("The connection was lost"))
        if self.running is None or self.running.called:
            self.release_body()
        if not self.startedWriting:
            self.code = CLIENT_GONE
            self.site.client_gone(self)

    def _reserve(self, size: int) -> bool:
        if self._memory is None:
            self._memory = self.site.reservation(self)
        return self._memory.reserve(size)

    def _refuse_body(self, error: Exception) -> None:
        self._discard_rest()
        self.release_body()
        self.site.refuse(self, error)

    def _stop_stream(self, error: Exception) -> None:
        """Pass nothing more on; a handler that reads gets `error`, which becomes its response."""
        assert self.stream is not None, "the body is streamed"
        if not self._refused:
            self._discard_rest()
            self.stream.fail(error)

    def _discard_rest(self) -> None:
        self._refused = True
        # A client that waits for "100 Continue" gets the response instead.
        self.requestHeaders.removeHeader(b"Expect")
        self.connection.persistent = 0
        self.connection.setTimeout(DRAIN_SECONDS)

    def _end_refused(self) -> None:
        """The rest of a refused body was discarded: the request ends with its response."""
        if self.startedWriting:
            http.Request.finish(self)
        else:
            # The handler of a stream is still about to respond.
            self._refused = False


def no_room() -> LimitExceeded:
    """The error for a body for which there is no memory."""
    return LimitExceeded(RETRY_AFTER_MS, "Too much is being sent to this server at the moment")


def _origin_form(uri: bytes) -> bytes:
    """A request line may name the whole URL: `GET http://example.org/path` (RFC 9112, 3.2.2)."""
    if uri.startswith(b"/") or b"://" not in uri:
        return uri
    return b"/" + uri.partition(b"://")[2].partition(b"/")[2]

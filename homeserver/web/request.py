"""One HTTP request: its head and body as values, and its response, written once and in one piece,
or part by part. The body may be a stream, too.

The sink gets a request as soon as its head has arrived, so that a body which is too large is
refused before it is read, and so is the body of a request that will be refused in any case. Such a
refusal closes the connection, but only after the rest of the body was read and discarded: otherwise
a client that is still sending would never see the response.

The bytes read are counted against a budget for all bodies, in which each address has a share, until
the response is sent, or until a handler that only waits and reads has its arguments.

Spec: https://spec.matrix.org/v1.19/client-server-api/#api-standards
"""

from collections.abc import AsyncGenerator
from typing import Any, Protocol

import msgspec
from twisted.internet.defer import Deferred

from homeserver.accounts.sessions.requester import Requester
from homeserver.concurrency.byte_stream import ByteStream
from homeserver.concurrency.memory_budget import Reservation
from homeserver.protocol.errors import LimitExceeded, MatrixError, TooLarge
from homeserver.web.connection.channel import Channel
from homeserver.web.connection.request_heads import RequestHead
from homeserver.web.query import parse_query
from homeserver.web.writing import Pacer, write_now

CLIENT_GONE = 499  # logged, never sent: the client has disconnected
MAX_DRAINED = 16 * 1_048_576  # bytes of a body that are read after its refusal, before the abort
DRAIN_SECONDS = 10.0
RETRY_AFTER_MS = 2_000
LAST_CHUNK = b"0\r\n\r\n"
SLASH = ord("/")


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

    def log(self, request: "Request") -> None:
        """The response was sent: record it."""


class BodyLimit(msgspec.Struct, frozen=True):
    """The maximum number of bytes of a body, and the error for larger ones if it is not `TooLarge`.

    With `is_streamed` the request is handled while its body arrives (`routes.py`).
    """

    size: int
    error: Exception | None = None
    is_streamed: bool = False

    def exceeded(self) -> Exception:
        """The error for a larger body."""
        return self.error or TooLarge(f"The body may have at most {self.size} bytes")


NO_BODY = BodyLimit(0)


class Request:
    """A request and its response.

    `id` is this server's name for it, in logs and in the message of an internal error. `caller` is
    set once the token was checked, `origin` once the signature of a server was. `label` is the path
    pattern of its route, for metrics, `hides_path` whether the log has it, too, in place of the
    path, and `context` belongs to the sink. `code` is the status of the response. `announced` is
    the number of bytes of the body, according to the head.
    """

    __slots__ = (
        "_address",
        "_buffer",
        "_drained",
        "_is_chunked",
        "_is_received",
        "_limit",
        "_memory",
        "_pacer",
        "_parameters",
        "_received",
        "announced",
        "body",
        "caller",
        "code",
        "connection",
        "context",
        "disconnected",
        "fields",
        "has_begun",
        "hides_path",
        "id",
        "is_http_1_0",
        "is_refused",
        "label",
        "method",
        "origin",
        "path",
        "query",
        "running",
        "site",
        "started",
        "stream",
        "uri",
    )

    def __init__(
        self,
        connection: Channel,
        head: RequestHead,
        site: RequestSink,
        request_id: str,
        started: float,
    ) -> None:
        self.connection = connection
        self.method, uri, self.is_http_1_0, self.fields = head
        self.uri = uri
        if uri[0] != SLASH:
            uri = _origin_form(uri)
        self.path, _, self.query = uri.partition(b"?")
        self.site = site
        self.id = request_id
        self.started = started
        self.caller: Requester | None = None
        self.origin: str | None = None
        self.label = ""
        self.hides_path = False
        self.context: Any = None
        self.code = 200
        self.body = b""
        self.announced: int | None = None
        self.stream: ByteStream | None = None
        self.running: Deferred[Any] | None = None
        self.disconnected = False
        self.has_begun = False
        self.is_refused = False
        self._limit = NO_BODY
        self._is_chunked = False
        self._is_received = False
        self._received = 0
        self._drained = 0
        self._pacer: Pacer | None = None
        self._parameters: dict[str, list[str]] | None = None
        self._address: str | None = None
        self._memory: Reservation | None = None
        # One block of memory, which the system gets back: many small ones would leave holes.
        self._buffer: bytearray | None = None

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
                forwarded = self.fields.values(b"x-forwarded-for")
                if forwarded:
                    texts = [value.decode("latin-1") for value in forwarded]
                    self._address = connection.proxies.client(connection.peer, texts)
        return self._address

    def header(self, name: bytes) -> str | None:
        """The value of a header, or `None` if it is missing or sent more than once."""
        values = self.fields.values(name.lower())
        return values[0].decode("latin-1") if len(values) == 1 else None

    @property
    def authorizations(self) -> list[str]:
        """The values of all `Authorization` headers: a server may sign with several keys."""
        return [value.decode("latin-1") for value in self.fields.values(b"authorization")]

    def token(self) -> str | None:
        """The access token. Raises `MissingToken` if it is malformed."""
        return self.fields.token(self.query)

    def send(self, status: int, head: bytes, body: bytes) -> None:
        """Write the response: `head` is the status line and all headers, with the empty line."""
        if self.disconnected:
            return
        self.code = status
        self.has_begun = True
        data = head if self.method == b"HEAD" else head + body
        write_now(self.connection.transport, data)
        if not self.is_refused:
            self._finish()

    def begin(self, status: int, head: bytes, *, chunked: bool) -> None:
        """Write the head of a response whose parts follow by `send_parts`."""
        self.code = status
        self._is_chunked = chunked
        self.has_begun = True
        write_now(self.connection.transport, head)

    async def send_parts(self, first: bytes, rest: AsyncGenerator[bytes, None]) -> bool:
        """Write the parts of a response that was begun; false if the client left before the end.

        Each part is written when the client has read the former ones. A client that does not read
        is disconnected by the channel's deadline.
        """
        connection = self.connection
        self._pacer = connection.producer = pacer = Pacer()
        try:
            self._write_part(first)
            while True:
                if pacer.is_paused:
                    connection.expect_reading(is_awaited=True)
                    await pacer.resumed()
                    connection.expect_reading(is_awaited=False)
                part = None if self.disconnected else await anext(rest, None)
                if part is None:
                    break
                self._write_part(part)
        finally:
            self._pacer = connection.producer = None
        if self.disconnected:
            return False
        if self._is_chunked:
            self._write(LAST_CHUNK)
        self._finish()
        return True

    def release_body(self) -> None:
        """Discard the body, and release the memory that was reserved for it.

        If a part of it is still to come, the connection ends after the response.
        """
        self.body = b""
        self._buffer = None
        if self._memory is not None:
            self._memory.release()
        if self.stream is not None and not self._is_received and not self.disconnected:
            self._stop_stream(BodyIncomplete("The request was handled without its whole body"))

    # The channel calls the following methods, in this order.

    def head_received(self, length: int | None) -> None:
        self.announced = length
        self._limit = limit = self.site.head_received(self)
        if length is not None and length > limit.size:
            self._refuse_body(limit.exceeded())
        elif limit.is_streamed:
            connection = self.connection
            self.stream = ByteStream(length, connection.pause_reading, connection.resume_reading)
            self.site.body_received(self)

    def body_part(self, data: bytes) -> None:
        self._received += len(data)
        if self.is_refused:
            self._drained += len(data)
            if self._drained > MAX_DRAINED:
                self.connection.close()
        elif self.stream is not None:
            if self._received > self._limit.size:
                self._stop_stream(self._limit.exceeded())
            else:
                self.stream.feed(data)
        elif self._received > self._limit.size:
            self._refuse_body(self._limit.exceeded())
        elif not self._reserve(len(data)):
            self._refuse_body(no_room())
        elif len(data) == self.announced:
            self.body = data
        elif self._buffer is None:
            self._buffer = bytearray(data)
        else:
            self._buffer += data

    def body_ended(self) -> None:
        self._is_received = True
        if self.is_refused:
            self._end_refused()
            return
        if self.stream is not None:
            self.stream.end()
            return
        if self._buffer is not None:
            self.body, self._buffer = bytes(self._buffer), None
        self.site.body_received(self)

    def connection_lost(self) -> None:
        self.disconnected = True
        if self._pacer is not None:
            # A connection that the channel has begun to close does not notify its producer.
            self._pacer.stopProducing()
        if self.stream is not None:
            self.stream.fail(BodyIncomplete("The connection was lost"))
        if self.running is None or self.running.called:
            self.release_body()
        if not self.has_begun:
            self.code = CLIENT_GONE
            self.site.client_gone(self)

    def _finish(self) -> None:
        """The response is complete."""
        self.site.log(self)
        self.connection.request_done()

    def _write(self, data: bytes) -> None:
        transport: Any = self.connection.transport
        transport.write(data)

    def _write_part(self, data: bytes) -> None:
        # An empty chunk would be the last one.
        if data and not self.disconnected:
            self._write(b"%x\r\n%s\r\n" % (len(data), data) if self._is_chunked else data)

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
        if not self.is_refused:
            self._discard_rest()
            self.stream.fail(error)

    def _discard_rest(self) -> None:
        self.is_refused = True
        # A client that waits for "100 Continue" gets the response instead.
        self.connection.persistent = False
        self.connection.set_timeout(DRAIN_SECONDS)

    def _end_refused(self) -> None:
        """The rest of a refused body was discarded: the request ends with its response."""
        if self.has_begun:
            self._finish()
        else:
            # The handler of a stream is still about to respond.
            self.is_refused = False


def no_room() -> LimitExceeded:
    """The error for a body for which there is no memory."""
    return LimitExceeded(RETRY_AFTER_MS, "Too much is being sent to this server at the moment")


def _origin_form(uri: bytes) -> bytes:
    """A request line may name the whole URL: `GET http://example.org/path` (RFC 9112, 3.2.2)."""
    if uri.startswith(b"/") or b"://" not in uri:
        return uri
    return b"/" + uri.partition(b"://")[2].partition(b"/")[2]

"""A client that POSTs JSON over persistent connections, for services that get many small requests.

It does one thing, and costs a fraction of a general client: it follows no redirects, stores no
cookies, and decodes no content encodings. All is bounded: the time of a request, the head and body
of a response, and the connections that are kept. Addresses and certificates are checked as for all
outgoing requests.

Spec: https://www.rfc-editor.org/rfc/rfc9112.html
"""

import re
from dataclasses import dataclass
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import URI

from homeserver.concurrency.lru_cache import LruCache
from homeserver.config.settings import OutboundHttpSettings
from homeserver.outbound.client_tls import ClientTls
from homeserver.outbound.graceful_close import ConnectionTracker
from homeserver.outbound.http_client import (
    USER_AGENT,
    OutboundError,
    WebEndpoints,
    normal_url,
    reason_of,
)
from homeserver.outbound.networks import open_network

MAX_HEAD = 16_384  # bytes of the head of a response, and of its chunk sizes and trailers
MAX_IDLE = 100  # connections of one service
MAX_SERVICES = 1_000  # whose connections are kept
IDLE_SECONDS = 30.0
MAX_URLS = 5_000

T = TypeVar("T")

_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: [^\r\n]*)?")
_CHUNK = re.compile(rb"([0-9a-fA-F]{1,8})[ \t]*(?:;[^\r\n]*)?")
_LENGTH = re.compile(rb"[0-9]{1,15}")
_NO_BODY = (204, 304)


@dataclass(frozen=True, slots=True)
class PostResponse:
    """A response: its status, and its body as it was sent."""

    status: int
    body: bytes


@dataclass(frozen=True, slots=True)
class _Target:
    """Where a URL leads: the service, and the head of requests up to the length."""

    service: bytes
    endpoint: IStreamClientEndpoint
    head: bytes


class JsonPosts:
    """Sends POST requests. `await stop()` when it is no longer needed."""

    def __init__(self, reactor: Any, settings: OutboundHttpSettings, purpose: str) -> None:
        self._reactor = reactor
        network = open_network(
            reactor, purpose, allow_private_addresses=settings.allow_private_addresses
        )
        self._open = ConnectionTracker(reactor)
        tls = ClientTls(verify=settings.verify_certificates)
        self._endpoints = WebEndpoints(network, tls, self._open)
        self._targets: LruCache[str, _Target] = LruCache("post_targets", MAX_URLS)
        self._idle: LruCache[bytes, list[_Connection]] = LruCache(
            "idle_post_connections", MAX_SERVICES, on_evict=_close_all
        )

    async def stop(self) -> None:
        """Close all connections."""
        await self._open.end()

    async def post(self, url: str, body: bytes, *, max_body: int, timeout: float) -> PostResponse:
        """Send JSON and read the response. Raises `OutboundError`.

        It must end within `timeout` seconds, and its body must have at most `max_body` bytes.
        """
        target = self._target(url)
        request = b"%b%d\r\n\r\n%b" % (target.head, len(body), body)
        alarm = _Alarm(self._reactor, timeout)
        try:
            while True:
                connection = self._take_idle(target.service)
                is_reused = connection is not None
                if connection is None:
                    connection = await alarm.guard(self._connect(target))
                try:
                    return await alarm.guard(connection.exchange(request, max_body))
                except _ClosedWhileIdle:
                    # The service closed it before it saw the request: it is no failure.
                    if not is_reused:
                        raise OutboundError("the connection was closed") from None
        finally:
            alarm.cancel()

    def _target(self, url: str) -> _Target:
        target = self._targets.get(url)
        if target is None:
            uri = URI.fromBytes(normal_url(url).encode("ascii"))
            host = uri.netloc
            head = (
                b"POST %b HTTP/1.1\r\nHost: %b\r\nUser-Agent: %b\r\n"
                b"Content-Type: application/json\r\nContent-Length: "
            ) % (uri.originForm, host, USER_AGENT.encode())
            service = uri.scheme + b"://" + host.lower()
            target = self._targets.put(
                url, _Target(service, self._endpoints.endpointForURI(uri), head)
            )
        return target

    def _connect(self, target: _Target) -> "Deferred[_Connection]":
        factory = Factory.forProtocol(lambda: _Connection(self, target.service))
        connecting: Deferred[Any] = target.endpoint.connect(factory)
        return connecting

    def _take_idle(self, service: bytes) -> "_Connection | None":
        idle = self._idle.get(service)
        while idle:
            connection = idle.pop()
            if connection.leave_pool():
                return connection
        return None

    def give_back(self, connection: "_Connection") -> None:
        """Keep a connection for the next request to its service."""
        idle = self._idle.get(connection.service)
        if idle is None:
            idle = self._idle.put(connection.service, [])
        if len(idle) >= MAX_IDLE:
            connection.close()
        else:
            idle.append(connection)
            connection.expire(self._reactor.seconds() + IDLE_SECONDS)
            self._close_expired(idle)

    def seconds(self) -> float:
        """The time of the reactor."""
        seconds: float = self._reactor.seconds()
        return seconds

    def _close_expired(self, idle: "list[_Connection]") -> None:
        """Close the connection that has been idle longest, if that is too long."""
        if idle[0].is_expired:
            idle.pop(0).close()


class _ClosedWhileIdle(Exception):
    """A connection was closed before a byte of the response came."""


class _Alarm:
    """Cancels what is being waited for when the time is over."""

    def __init__(self, reactor: Any, seconds: float) -> None:
        self._seconds = seconds
        self._waiting: Deferred[Any] | None = None
        self._is_over = False
        self._call = reactor.callLater(seconds, self._ring)

    async def guard(self, waiting: "Deferred[T]") -> T:
        """The result of a Deferred. Raises `OutboundError`."""
        self._waiting = waiting
        try:
            return await waiting
        except (OutboundError, _ClosedWhileIdle):
            raise
        except Exception as error:
            if self._is_over:
                reason = f"there was no response within {self._seconds:g} seconds"
                raise OutboundError(reason) from error
            raise OutboundError(f"{type(error).__name__}: {reason_of(error)}") from error

    def cancel(self) -> None:
        if self._call.active():
            self._call.cancel()

    def _ring(self) -> None:
        self._is_over = True
        if self._waiting is not None:
            self._waiting.cancel()


class _Connection(Protocol):
    """One connection: one request at a time."""

    def __init__(self, pool: JsonPosts, service: bytes) -> None:
        self.service = service
        self._pool = pool
        self._expires_at = 0.0
        self._waiting: Deferred[PostResponse] | None = None
        self._response: _ResponseParser | None = None
        self._is_lost = False

    @property
    def is_expired(self) -> bool:
        """Whether it has been idle too long."""
        return self._pool.seconds() > self._expires_at

    def expire(self, at: float) -> None:
        """It may be used again until then."""
        self._expires_at = at

    def leave_pool(self) -> bool:
        """Whether it can be used for another request; if not, it is closed."""
        if self._is_lost:
            return False
        if self.is_expired:
            self.close()
            return False
        return True

    def exchange(self, request: bytes, max_body: int) -> "Deferred[PostResponse]":
        """Send a request; fires with the response."""
        self._response = _ResponseParser(max_body)
        waiting = self._waiting = Deferred(lambda _: self.close())
        if self._is_lost:
            self._fail(_ClosedWhileIdle())
        elif self.transport is not None:
            self.transport.write(request)
        return waiting

    def close(self) -> None:
        """Close it; nothing of it is read any more."""
        self._response = None
        self._waiting = None
        self._is_lost = True
        if self.transport is not None:
            self.transport.loseConnection()

    def dataReceived(self, data: bytes) -> None:
        response = self._response
        if response is None:
            self.close()  # nothing was requested
            return
        try:
            is_complete = response.feed(data)
        except OutboundError as error:
            self._fail(error)
            return
        if is_complete:
            self._succeed(response)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._is_lost = True
        response = self._response
        if self._waiting is None or response is None:
            return
        if response.ends_with_connection:
            self._succeed(response)
        elif response.is_begun:
            self._fail(OutboundError("the connection was closed within the response"))
        else:
            self._fail(_ClosedWhileIdle())

    def _succeed(self, response: "_ResponseParser") -> None:
        waiting, self._waiting, self._response = self._waiting, None, None
        if response.may_reuse and not self._is_lost:
            self._pool.give_back(self)
        else:
            self.close()
        if waiting is not None:
            waiting.callback(PostResponse(response.status, bytes(response.body)))

    def _fail(self, error: Exception) -> None:
        waiting = self._waiting
        self.close()
        if waiting is not None:
            waiting.errback(error)


class _ResponseParser:
    """Reads one response. `feed` raises `OutboundError` for what is none, or too large."""

    def __init__(self, max_body: int) -> None:
        self.status = 0
        self.body = bytearray()
        self.is_begun = False
        self.may_reuse = False
        self._max_body = max_body
        self._buffer = bytearray()
        self._head_bytes = 0
        self._left: int | None = None  # bytes of the body, or of the chunk
        self._is_chunked = False
        self._is_in_trailer = False
        self._has_head = False

    @property
    def ends_with_connection(self) -> bool:
        """Whether the end of the connection ends the response."""
        return self._has_head and not self._is_chunked and self._left is None

    def feed(self, data: bytes) -> bool:
        """Read more; whether the response is complete."""
        self.is_begun = True
        self._buffer += data
        if not self._has_head and not self._read_head():
            return False
        if self._is_chunked:
            return self._read_chunks()
        return self._read_body()

    def _read_head(self) -> bool:
        while True:
            end = self._buffer.find(b"\r\n\r\n")
            self._count_head(end + 4 if end >= 0 else 0, len(self._buffer) if end < 0 else 0)
            if end < 0:
                return False
            lines = bytes(self._buffer[:end]).split(b"\r\n")
            del self._buffer[: end + 4]
            matched = _STATUS.fullmatch(lines[0])
            if matched is None:
                raise OutboundError("the response is not HTTP/1.1")
            self.status = int(matched[2])
            if self.status == 101:
                raise OutboundError("the response switches the protocol")
            if self.status >= 200:
                break
        headers: dict[bytes, bytes] = {}
        for line in lines[1:]:
            name, colon, value = line.partition(b":")
            if not colon:
                raise OutboundError("a header of the response is not valid")
            name, value = name.lower(), value.strip(b" \t")
            if name == b"content-length" and headers.get(name, value) != value:
                raise OutboundError("the response has two lengths")
            headers[name] = value
        self._take_headers(headers, is_new=matched[1] == b"1")
        return True

    def _count_head(self, complete: int, waiting: int) -> None:
        self._head_bytes += complete
        if self._head_bytes + waiting > MAX_HEAD:
            raise OutboundError("the head of the response is too large")

    def _take_headers(self, headers: dict[bytes, bytes], *, is_new: bool) -> None:
        self._has_head = True
        connection = headers.get(b"connection", b"").lower()
        self.may_reuse = is_new and b"close" not in connection
        if self.status in _NO_BODY:
            self._left = 0
        elif b"transfer-encoding" in headers:
            if headers[b"transfer-encoding"].lower() != b"chunked":
                raise OutboundError("the transfer encoding of the response is unknown")
            self._is_chunked = True
        elif b"content-length" in headers:
            if not _LENGTH.fullmatch(headers[b"content-length"]):
                raise OutboundError("the length of the response is not valid")
            self._left = int(headers[b"content-length"])
            if self._left > self._max_body:
                raise OutboundError("the response is too large")
        else:
            self.may_reuse = False

    def _read_body(self) -> bool:
        left = len(self._buffer) if self._left is None else self._left
        part = self._buffer[:left]
        del self._buffer[:left]
        self._add(part)
        if self._left is None:
            return False
        self._left -= len(part)
        if self._left:
            return False
        if self._buffer:
            self.may_reuse = False  # more than was asked for
        return True

    def _read_chunks(self) -> bool:
        while True:
            if self._left is not None:
                # The chunk, and the line end after it.
                part = self._buffer[: self._left]
                del self._buffer[: self._left]
                self._left -= len(part)
                self._add(part)
                if self._left or len(self._buffer) < 2:
                    return False
                if self._buffer[:2] != b"\r\n":
                    raise OutboundError("a chunk of the response is not valid")
                del self._buffer[:2]
                self._left = None
            end = self._buffer.find(b"\r\n")
            self._count_head(end + 2 if end >= 0 else 0, len(self._buffer) if end < 0 else 0)
            if end < 0:
                return False
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 2]
            if self._is_in_trailer:
                if not line:
                    self.may_reuse = self.may_reuse and not self._buffer
                    return True
                continue
            matched = _CHUNK.fullmatch(line)
            if matched is None:
                raise OutboundError("a chunk of the response is not valid")
            size = int(matched[1], 16)
            if size:
                self._left = size
            else:
                self._is_in_trailer = True

    def _add(self, part: bytearray) -> None:
        self.body += part
        if len(self.body) > self._max_body:
            raise OutboundError("the response is too large")


def _close_all(_: bytes, connections: "list[_Connection]") -> None:
    for connection in connections:
        connection.close()

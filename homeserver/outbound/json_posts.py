"""A client that POSTs JSON over persistent connections, for services that get many small requests.

It does one thing, and costs a fraction of a general client: it follows no redirects, stores no
cookies, and decodes no content encodings. All is bounded: the time of a request, the head and body
of a response, and the connections that are kept. Addresses and certificates are checked as for all
outgoing requests.

Spec: https://www.rfc-editor.org/rfc/rfc9112.html
"""

from typing import Any, TypeVar

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import URI

from homeserver.concurrency.clock import DelayedCall
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
from homeserver.outbound.response_parser import ResponseParser

MAX_IDLE = 100  # connections of one service
MAX_IDLE_IN_ALL = 1_000  # connections
IDLE_SECONDS = 30.0  # after which a connection is not used again, and closed at the next look
MAX_URLS = 5_000

T = TypeVar("T")


class PostResponse(msgspec.Struct, frozen=True):
    """A response: its status, and its body as it was sent."""

    status: int
    body: bytes


class _Target(msgspec.Struct, frozen=True):
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
        # By service, the one that has been idle longest first.
        self._idle: LruCache[bytes, list[_Connection]] = LruCache(
            "idle_post_connections",
            MAX_IDLE_IN_ALL,
            size_of=lambda _, connections: max(1, len(connections)),
            on_evict=_close_all,
        )
        self._next_look: DelayedCall | None = None

    async def stop(self) -> None:
        """Close all connections."""
        await self._open.end()
        if self._next_look is not None:
            self._next_look.cancel()
            self._next_look = None

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
        idle = self._idle.get(connection.service) or []
        if len(idle) >= MAX_IDLE:
            connection.close()
            return
        idle.append(connection)
        connection.expire(self._reactor.seconds() + IDLE_SECONDS)
        self._idle.put(connection.service, idle)
        self._look_later()

    def seconds(self) -> float:
        """The time of the reactor."""
        seconds: float = self._reactor.seconds()
        return seconds

    def _look_later(self) -> None:
        if self._next_look is None:
            self._next_look = self._reactor.callLater(IDLE_SECONDS, self._close_expired)

    def _close_expired(self) -> None:
        """Close what was idle too long: most services are not sent anything for hours."""
        self._next_look = None
        for service, idle in list(self._idle.items()):
            while idle and idle[0].is_expired:
                idle.pop(0).close()
            if idle:
                self._idle.measure(service)
            else:
                self._idle.pop(service)
        if self._idle:
            self._look_later()


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
        self._response: ResponseParser | None = None
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
        self._response = ResponseParser(max_body)
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

    def _succeed(self, response: ResponseParser) -> None:
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


def _close_all(_: bytes, connections: "list[_Connection]") -> None:
    for connection in connections:
        connection.close()

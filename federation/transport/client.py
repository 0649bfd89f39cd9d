"""The client for requests to other servers: signed, bounded, with responses of a known shape.

A request waits for a slot while many go to one server, is sent over a connection that is kept open,
and ends within its timeout whatever the other server does. Redirects are not followed: the API has
none. `DestinationHealth` records whether a server responds; a server that failed lately gets no
request before its pause is over, unless the caller has a reason to try.

Spec: https://spec.matrix.org/v1.19/server-server-api/#request-authentication
"""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from io import BytesIO
from typing import Any, Protocol, TypeVar
from urllib.parse import quote, urlencode

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionClosed
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.client import FileBodyProducer, RequestTransmissionFailed, ResponseNeverReceived
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse

from federation.transport.connections import Connections, Peer
from federation.transport.discovery import Discovery
from federation.transport.errors import (
    FederationDenied,
    FederationError,
    InvalidResponse,
    RemoteError,
    TooBusy,
    Unreachable,
)
from federation.transport.lenient_lists import decode_response
from federation.transport.permitted_servers import PermittedServers
from homeserver.concurrency.clock import wall_seconds
from homeserver.concurrency.memory_budget import MemoryBudget, Reservation
from homeserver.outbound.http_client import (
    USER_AGENT,
    OutboundError,
    OutboundTooBusy,
    read_body,
    reason_of,
)
from homeserver.outbound.retry_after import retry_after_ms
from homeserver.protocol.errors import MatrixError
from homeserver.protocol.signing.canonical_json import encode_canonical_loose
from homeserver.protocol.signing.signatures import SigningKey
from homeserver.protocol.signing.x_matrix import authorize

TIMEOUT_SECONDS = 30.0  # of one request, waiting for a slot and discovery included
MAX_RESPONSE_BYTES = 4 * 1_048_576  # bytes
MAX_ERROR = 65_536  # bytes
MAX_BUFFERED_BYTES = 512 * 1_048_576  # bytes of all responses that are being read
MAX_WAITING = 200  # requests to one server that wait for a slot

ResponseT = TypeVar("ResponseT")
Query = Mapping[str, str | Sequence[str]]
log = Logger()


class Signer(msgspec.Struct, frozen=True):
    """The server name and the key that sign requests."""

    server_name: str
    key: SigningKey


class HealthPort(Protocol):
    """Records whether servers respond: `DestinationHealth`."""

    def check(self, server: str) -> None:
        """Raise `BackingOff` while the server is in its pause."""

    def failed(self, server: str) -> None: ...

    def succeeded(self, server: str) -> None: ...


class _Message(msgspec.Struct, frozen=True):
    """One request as it is sent."""

    method: str
    uri: str
    body: bytes | None
    signer: Signer | None
    max_response: int


class FederationClient:
    """Sends requests in the name of this server.

    All requests raise `FederationError`: `FederationDenied`, `BackingOff`, `TooBusy`,
    `Unreachable`, `InvalidResponse`, `RemoteError`.
    """

    def __init__(
        self,
        reactor: Any,
        signer: Signer,
        discovery: Discovery,
        connections: Connections,
        permitted: PermittedServers,
        destinations: HealthPort,
        *,
        max_together: int = MAX_BUFFERED_BYTES,
    ) -> None:
        self._reactor = reactor
        self._signer = signer
        self._discovery = discovery
        self._connections = connections
        self._permitted = permitted
        self._destinations = destinations
        self._memory = MemoryBudget(max_together)
        self._waiting: set[Deferred[Any]] = set()
        self._ended = False

    @property
    def memory_taken(self) -> int:
        """Bytes of responses that are being read."""
        return self._memory.taken

    def end_waits(self) -> None:
        """Fail the requests in progress, and all later ones: no response will come."""
        self._ended = True
        for waiting in [*self._waiting]:
            waiting.cancel()

    async def get(self, server: str, path: str, query: Query | None = None, **options: Any) -> Any:
        """The response to a GET request; `options` are those of `request`."""
        return await self.request("GET", server, path, query=query, **options)

    async def put(self, server: str, path: str, content: Any, **options: Any) -> Any:
        """The response to a PUT request, which is repeated if a kept connection was closed."""
        return await self.request("PUT", server, path, content=content, **options)

    async def post(self, server: str, path: str, content: Any, **options: Any) -> Any:
        """The response to a POST request."""
        return await self.request("POST", server, path, content=content, **options)

    async def request(
        self,
        method: str,
        server: str,
        path: str,
        *,
        query: Query | None = None,
        content: Any = None,
        response_type: Any = dict[str, Any],
        timeout: float = TIMEOUT_SECONDS,
        max_response: int = MAX_RESPONSE_BYTES,
        signed: bool = True,
        despite_backoff: bool = False,
    ) -> Any:
        """Send a request, and decode its response as `response_type`.

        `path` is percent-encoded (`path_of`). `content` is JSON, or `bytes` that are canonical JSON
        already. `max_response` is in bytes, `timeout` in seconds. `despite_backoff`: try a server
        even though it failed lately, as when a user waits for it.
        """
        uri = path if not query else f"{path}?{urlencode(query, doseq=True, quote_via=quote)}"
        if content is not None and not isinstance(content, bytes):
            content = encode_canonical_loose(content)
        signer = self._signer if signed else None
        message = _Message(method, uri, content, signer, max_response)
        return await self._run(
            server,
            lambda: self._exchange(server, message, response_type),
            timeout,
            despite_backoff=despite_backoff,
        )

    async def stream(
        self,
        server: str,
        path: str,
        query: Query,
        receive: Callable[[IResponse], Coroutine[Deferred[Any], Any, ResponseT]],
        *,
        timeout: float,
        signed: bool = True,
    ) -> ResponseT:
        """Send a GET request, and have `receive` read the body of its response.

        It takes no slot of the server's other requests, which a long transfer would delay; the
        caller bounds the number of transfers. A `MatrixError` of `receive` is passed on.
        """
        message = _Message(
            "GET",
            f"{path}?{urlencode(query, doseq=True, quote_via=quote)}",
            None,
            self._signer if signed else None,
            MAX_ERROR,
        )
        result: ResponseT = await self._run(
            server,
            lambda: self._transfer(server, message, receive),
            timeout,
            despite_backoff=True,
        )
        return result

    async def _run(
        self,
        server: str,
        begin: Callable[[], Coroutine[Deferred[Any], Any, Any]],
        timeout: float,
        *,
        despite_backoff: bool,
    ) -> Any:
        """The result of an exchange, within its timeout; the health of the server is recorded."""
        self._check_permitted(server)
        if not despite_backoff:
            self._destinations.check(server)
        if self._ended:
            raise Unreachable(server, "this server is shutting down")
        exchange = Deferred.fromCoroutine(begin())
        waiting = _unless_cancelled(exchange.addTimeout(timeout, self._reactor, _timed_out))
        self._waiting.add(waiting)
        try:
            result = await waiting
        except CancelledError:
            if self._ended:
                raise Unreachable(server, "this server is shutting down") from None
            raise
        except MatrixError:
            raise
        except Exception as error:
            failure = _as_federation_error(server, error)
            self._record(failure)
            raise failure from error
        finally:
            self._waiting.discard(waiting)
        self._destinations.succeeded(server)
        return result

    def _check_permitted(self, server: str) -> None:
        if server == self._signer.server_name:
            raise FederationDenied(server, "this server itself is not asked over federation")
        if not self._permitted.permits(server):
            raise FederationDenied(
                server, "the configuration does not permit federation with this server"
            )

    async def _exchange(self, server: str, message: _Message, response_type: Any) -> Any:
        address = await self._discovery.find(server)
        peer = self._connections.to(server, address)
        if len(peer.slots.waiting) >= MAX_WAITING:
            raise Unreachable(server, "too many requests are waiting for this server")
        memory = self._memory.reservation()
        try:
            response, body = await self._receive(server, peer, message, memory)
            if response.code >= 300:
                raise _error_in(server, response, body, wall_seconds(self._reactor))
            return await decode_response(self._reactor, server, response_type, body)
        finally:
            memory.release()

    async def _transfer(
        self,
        server: str,
        message: _Message,
        receive: Callable[[IResponse], Coroutine[Deferred[Any], Any, ResponseT]],
    ) -> ResponseT:
        peer = self._connections.to(server, await self._discovery.find(server))
        response = await self._send(server, peer, message)
        if response.code >= 300:
            body = await read_body(response, MAX_ERROR)
            raise _error_in(server, response, body, wall_seconds(self._reactor))
        return await receive(response)

    async def _receive(
        self, server: str, peer: Peer, message: _Message, memory: Reservation
    ) -> tuple[IResponse, bytes]:
        """The response to a message, and its body, once a slot is free."""
        await peer.slots.acquire()
        try:
            response = await self._send(server, peer, message)
            is_error = response.code >= 300
            max_body = min(MAX_ERROR, message.max_response) if is_error else message.max_response
            return response, await read_body(response, max_body, memory.reserve)
        except OutboundTooBusy as error:
            raise TooBusy(server, str(error)) from error
        except OutboundError as error:
            raise InvalidResponse(server, str(error)) from error
        finally:
            peer.slots.release()

    async def _send(self, server: str, peer: Peer, message: _Message) -> IResponse:
        try:
            return await self._send_once(server, peer, message)
        except (RequestTransmissionFailed, ResponseNeverReceived) as error:
            # The server may close an idle connection at the very moment at which it is used again.
            # Twisted repeats requests without a body itself; a PUT can be repeated too.
            if message.method != "PUT" or not _was_closed(error):
                raise
            return await self._send_once(server, peer, message)

    async def _send_once(self, server: str, peer: Peer, message: _Message) -> IResponse:
        headers = Headers({"User-Agent": [USER_AGENT], "Host": [peer.address.host_header]})
        producer = None
        if message.body is not None:
            headers.addRawHeader("Content-Type", "application/json")
            producer = FileBodyProducer(BytesIO(message.body))
        if message.signer is not None:
            signer = message.signer
            header = authorize(
                message.method, message.uri, signer.server_name, server, message.body, signer.key
            )
            headers.addRawHeader("Authorization", str(header))
        url = f"https://{peer.address.host_header}{message.uri}".encode("ascii")
        response: IResponse = await peer.agent.request(
            message.method.encode(), url, headers, producer
        )
        return response

    def _record(self, error: FederationError) -> None:
        if isinstance(error, FederationDenied):
            return
        if error.is_alive:
            self._destinations.succeeded(error.server)
        else:
            log.info("request failed: {error}", error=error)
            self._destinations.failed(error.server)


def _error_in(server: str, response: IResponse, body: bytes, now: float) -> FederationError:
    """The error in a response of `now`; if no homeserver wrote it, a proxy in front of one did."""
    status = response.code
    wait_ms = retry_after_ms(response.headers, now)
    try:
        content = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        content = None
    if isinstance(content, dict) and isinstance(content.get("errcode"), str) and status >= 400:
        return RemoteError(server, status, content, wait_ms)
    if status in (404, 413):
        # Older servers respond like this where they do not have an endpoint, and proxies where a
        # body is too large for them.
        return RemoteError(server, status, {}, wait_ms)
    return InvalidResponse(server, f"status {status} without an error code")


def _unless_cancelled(exchange: Deferred[Any]) -> Deferred[Any]:
    """The outcome of an exchange, or `CancelledError` if the caller gives up.

    A cancelled exchange may fail in other ways as well, as if the server were at fault.
    """
    given_up = False

    def cancel(_: Deferred[Any]) -> None:
        nonlocal given_up
        given_up = True
        exchange.cancel()

    def pass_on(outcome: Any) -> None:
        if given_up:
            return
        if isinstance(outcome, Failure):
            waiter.errback(outcome)
        else:
            waiter.callback(outcome)

    waiter: Deferred[Any] = Deferred(cancel)
    exchange.addBoth(pass_on)
    return waiter


def _was_closed(error: Any) -> bool:
    return all(reason.check(ConnectionClosed) for reason in error.reasons)


def _timed_out(_: object, timeout: float) -> Failure:
    return Failure(TimeoutError(f"no response within {timeout} seconds"))


def _as_federation_error(server: str, error: Exception) -> FederationError:
    if isinstance(error, FederationError):
        return error
    return Unreachable(server, f"{type(error).__name__}: {reason_of(error)}")

"""The HTTP server of one listener: it passes requests to routes, and sends results or errors.

The order is: find the route; refuse a body that is too large, or that will not be used, before it
is sent; once the body has arrived, authenticate the caller, count the request against its rate
limit, decode the arguments, call the handler. Nothing waits that need not: with a cached token and
a plain handler, the response is written without yielding to the reactor.

An error of `protocol/errors.py` becomes the specified response. Any other exception is a defect: it
is logged with its traceback, and the client gets only the id of its request. If part of a streamed
response was sent already, the connection ends.

Spec: https://spec.matrix.org/v1.19/client-server-api/#standard-error-response
"""

import secrets
from collections.abc import Awaitable, Mapping
from contextlib import aclosing, suppress
from itertools import count
from types import CoroutineType
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import ServerFactory
from twisted.logger import Logger
from twisted.python.failure import Failure

from homeserver.accounts.sessions.requester import Requester
from homeserver.concurrency.clock import wall_seconds
from homeserver.concurrency.deferreds import run_until_waiting
from homeserver.concurrency.memory_budget import Reservation
from homeserver.protocol.errors import MatrixError, MissingToken, Unavailable
from homeserver.web.addresses import network_of
from homeserver.web.authentication import check_caller
from homeserver.web.connection.channel import Channel
from homeserver.web.connection.request_heads import RequestHead
from homeserver.web.html import accepts_html
from homeserver.web.pipeline import RequestPipeline
from homeserver.web.request import CLIENT_GONE, BodyLimit, Request, no_room
from homeserver.web.responses import (
    NO_HEADERS,
    BodyEnd,
    ResponseHeads,
    encode_body,
    error_response,
    preflight,
)
from homeserver.web.router import Endpoint, Router
from homeserver.web.routes import Auth, Response, Streamed
from homeserver.web.socket_upgrades import Upgrade, check_upgrade

if TYPE_CHECKING:
    from homeserver.web.websocket import Socket

MAX_UNAUTHENTICATED_BODY = 65_536  # bytes, for requests that need no authentication or fail it
PROGRAMS = (b"/_matrix/", b"/_synapse/", b"/.well-known/")
"""Paths for programs, not for browsers, even if no route matches."""

REQUEST_LINE = "{method} {path} {status} in {seconds:.4f}s for {user_id} at {address}, {request_id}"

log = Logger()


class HttpServer(ServerFactory):
    """A server of one router's routes, on any number of ports.

    `connections` are the open ones, and `sockets` those of them that became WebSockets.
    """

    noisy = False

    def __init__(self, clock: IReactorTime, router: Router, gate: RequestPipeline) -> None:
        self.connections: set[Channel] = set()
        self.sockets: set[Socket] = set()
        self._draining = False
        self._clock = clock
        self._router = router
        self._gate = gate
        self._heads = ResponseHeads()
        self._limits = {
            endpoint: _body_limit(endpoint, gate.bounds.max_body) for endpoint in router.endpoints
        }
        self._numbers = count(1)
        self._id_prefix = secrets.token_hex(3)

    def buildProtocol(self, addr: IAddress | None) -> Channel:
        bounds = self._gate.bounds
        channel = Channel(
            self._clock,
            self._gate.proxies,
            self.connections,
            self._make_request,
            idle_timeout=bounds.idle_timeout,
            request_timeout=bounds.request_timeout,
        )
        channel.factory = self
        return channel

    def head_received(self, request: Request) -> BodyLimit:
        """Find the route, and so the limit of the body.

        If the response is an error in any case, a small body is read all the same, so that the
        connection can be reused.
        """
        try:
            endpoint, _ = request.context = self._router.match(
                request.method.decode("latin-1"), request.path
            )
        except MatrixError as error:
            request.context = error
            return BodyLimit(MAX_UNAUTHENTICATED_BODY, error)
        route, announced = endpoint.route, request.announced
        request.label, request.hides_path = route.path, route.hides_path
        if announced is None or announced > MAX_UNAUTHENTICATED_BODY:
            try:
                self._check_head(request, route.auth)
            except MatrixError as error:
                return BodyLimit(MAX_UNAUTHENTICATED_BODY, error)
        limit = self._limits[endpoint]
        if announced and announced <= limit.size and not limit.is_streamed:
            # No memory is reserved for an announced body: without room for it, it is only refused
            # sooner.
            network = network_of(request.address)
            if not self._gate.bodies.has_room(announced, network):
                return BodyLimit(0, no_room())
        return limit

    def reservation(self, request: Request) -> Reservation:
        """The reservation of memory for the body of a request."""
        return self._gate.bodies.reservation(network_of(request.address))

    def body_received(self, request: Request) -> None:
        """Handle a complete request, synchronously if nothing has to be awaited."""
        if request.method == b"OPTIONS":
            self._send(request, preflight(self._request_headers(request)))
            return
        try:
            result = self._begin(request)
            if isinstance(result, CoroutineType):
                result = run_until_waiting(result)
        except Exception as error:
            self.refuse(request, error)
            return
        if isinstance(result, Deferred):
            request.running = result
            result.addCallbacks(
                lambda value: self._respond(request, value),
                lambda failure: self.refuse(request, failure.value),
            )
        else:
            self._respond(request, result)

    def refuse(self, request: Request, error: Exception) -> None:
        """Respond with any error."""
        if isinstance(error, CancelledError):
            error = Unavailable("The server is shutting down")
        elif not isinstance(error, MatrixError):
            log.failure("request {request_id} failed", Failure(error), request_id=request.id)
            message = f"Internal error; the server's log has it as request {request.id}"
            error = MatrixError(message)
        if self._gate.pages is not None and _is_read_by_a_person(request):
            self._send(request, self._gate.pages.error_page(error))
        else:
            self._send(request, error_response(error))

    def client_gone(self, request: Request) -> None:
        """The client will not read the response: cancel a handler that only waits and reads."""
        self._cancel(request)
        if request.context is not None:
            self.log(request)

    def log(self, request: Request) -> None:
        """Record a finished request, in the log and for metrics. The query may contain secrets."""
        method = request.method.decode("latin-1")
        seconds = self._clock.seconds() - request.started
        if self._gate.logs_requests:
            log.info(
                REQUEST_LINE,
                method=method,
                path=request.logged_path,
                status=request.code,
                seconds=seconds,
                user_id=request.caller.user_id if request.caller else request.origin or "-",
                address=request.address,
                request_id=request.id,
            )
        if self._gate.observer is not None:
            self._gate.observer.request_finished(method, request.label, request.code, seconds)

    def drain(self) -> None:
        """Close idle connections now, and the others after their response."""
        self._draining = True
        for connection in list(self.connections):
            connection.close_when_idle()

    def cancel_waits(self) -> None:
        """Cancel the handlers that only wait and read."""
        for connection in list(self.connections):
            if isinstance(connection.request, Request):
                self._cancel(connection.request)

    def abort(self) -> None:
        """Abort all connections."""
        for connection in list(self.connections):
            connection.abort()
        for socket in list(self.sockets):
            socket.dropConnection(abort=True)

    def _request_headers(self, request: Request) -> tuple[str, ...]:
        """The headers that the route allows to which a preflight request belongs."""
        method = request.header(b"Access-Control-Request-Method") or ""
        try:
            endpoint, _ = self._router.match(method, request.path)
        except MatrixError:
            return ()
        return endpoint.route.request_headers

    def _make_request(self, connection: Channel, head: RequestHead) -> Request:
        number = f"{self._id_prefix}-{next(self._numbers):x}"
        return Request(connection, head, self, number, self._clock.seconds())

    def _check_head(self, request: Request, auth: Auth) -> None:
        """Check, without the body, that a request has the required authentication."""
        if auth is Auth.SERVER:
            if self._gate.servers is not None:
                self._gate.servers.check_head(request)
        elif auth is not Auth.NONE and request.token() is None and auth is not Auth.OPTIONAL:
            raise MissingToken("The request needs an access token")

    def _begin(self, request: Request) -> Any:
        """Authenticate and call; the result, or an awaitable of it."""
        if isinstance(request.context, MatrixError):
            raise request.context
        endpoint: Endpoint = request.context[0]
        auth = endpoint.route.auth
        if endpoint.route.websocket:
            check_upgrade(request)
        if auth is Auth.NONE:
            return self._call(request)
        if auth is Auth.SERVER:
            return self._call_for_server(request)
        token = request.token()
        if token is None:
            if auth is Auth.OPTIONAL:
                return self._call(request)
            raise MissingToken("The request needs an access token")
        caller = self._gate.authenticator.authenticate(token, request)
        if isinstance(caller, Requester):
            request.caller = check_caller(auth, caller)
            return self._call(request)
        return self._call_when_known(request, caller)

    async def _call_when_known(self, request: Request, caller: Awaitable[Requester]) -> Any:
        request.caller = check_caller(request.context[0].route.auth, await caller)
        result = self._call(request)
        return await result if isinstance(result, Awaitable) else result

    async def _call_for_server(self, request: Request) -> Any:
        assert self._gate.servers is not None, "a listener for servers can authenticate them"
        request.origin = await self._gate.servers.authenticate(request)
        result = self._call(request)
        return await result if isinstance(result, Awaitable) else result

    def _call(self, request: Request) -> Any:
        endpoint, values = request.context
        route = endpoint.route
        if route.limit is not None:
            who = request.caller or request.origin or self._party(request)
            self._gate.rate_limits.check(route.limit, who)
        arguments = endpoint.arguments.fill(values, request.caller, request)
        if route.cancellable and request.body:
            # The handler may wait for a minute, and has what it needs of the body.
            request.release_body()
        return route.handler(**arguments)

    def _party(self, request: Request) -> Requester | str:
        """The party of a request without caller: an application service, or a host's network."""
        if self._gate.parties is not None:
            with suppress(MissingToken):
                token = request.token()
                party = None if token is None else self._gate.parties.party_of(token)
                return party or network_of(request.address)
        return network_of(request.address)

    def _cancel(self, request: Request) -> None:
        if request.running is not None and request.context[0].route.cancellable:
            request.running.cancel()

    def _respond(self, request: Request, result: Any) -> None:
        """Send the result of a handler."""
        try:
            if isinstance(result, Upgrade):
                self._upgrade(request, result)
            elif isinstance(result, Streamed):
                self._stream(request, result)
            elif isinstance(result, Response):
                self._send(request, result)
            else:
                self._write(request, 200, result)
        except Exception as error:
            self.refuse(request, error)

    def _send(self, request: Request, response: Response) -> None:
        self._write(request, response.status, response.body, response.headers)

    def _write(
        self, request: Request, status: int, body: object, headers: Mapping[str, str] = NO_HEADERS
    ) -> None:
        request.release_body()
        if request.disconnected:
            return
        encoded = encode_body(body)
        request.send(status, self._head(request, status, len(encoded), headers), encoded)

    def _head(
        self, request: Request, status: int, length: int | BodyEnd, headers: Mapping[str, str]
    ) -> bytes:
        if self._draining:
            request.connection.persistent = False
        return self._heads.head(
            status,
            length,
            headers,
            now=wall_seconds(self._clock),
            close=not request.connection.persistent,
        )

    def _stream(self, request: Request, streamed: Streamed) -> None:
        request.release_body()
        request.running = sending = Deferred.fromCoroutine(self._send_parts(request, streamed))
        sending.addErrback(lambda failure: self._end_early(request, failure))

    async def _send_parts(self, request: Request, streamed: Streamed) -> None:
        async with aclosing(streamed.parts) as parts:
            first = await anext(parts, b"")
            if request.disconnected:
                return
            end: int | BodyEnd = BodyEnd.CHUNKS
            if streamed.size is not None:
                end = streamed.size
            elif request.is_http_1_0:
                end, request.connection.persistent = BodyEnd.CLOSE, False
            head = self._head(request, streamed.status, end, streamed.headers)
            if request.method == b"HEAD":
                request.send(streamed.status, head, b"")
                return
            request.begin(streamed.status, head, chunked=end is BodyEnd.CHUNKS)
            is_complete = await request.send_parts(first, parts)
        if not is_complete:
            request.code = CLIENT_GONE
            self.log(request)

    def _end_early(self, request: Request, failure: Failure) -> None:
        """Handle an error of a streamed response, of which the client may have a part."""
        if not request.has_begun:
            error = failure.value
            self.refuse(request, error if isinstance(error, Exception) else CancelledError())
            return
        if not failure.check(CancelledError, MatrixError):
            log.failure("request {request_id} failed", failure, request_id=request.id)
        request.code = Unavailable.status
        self.log(request)
        request.connection.abort()

    def _upgrade(self, request: Request, wanted: Upgrade) -> None:
        request.release_body()
        if request.disconnected:
            return
        wanted.hand_over(request)
        self.sockets.add(wanted.socket)
        wanted.socket.is_closed.addCallback(lambda _: self.sockets.discard(wanted.socket))
        request.code = 101
        self.log(request)


def _is_read_by_a_person(request: Request) -> bool:
    """Whether a browser shows the response: for a page, or for a path without a route."""
    if not accepts_html(request.header(b"Accept")):
        return False
    if isinstance(request.context, MatrixError):
        return not request.path.startswith(PROGRAMS)
    return request.context is not None and bool(request.context[0].route.page)


def _body_limit(endpoint: Endpoint, usual: int) -> BodyLimit:
    route, is_streamed = endpoint.route, endpoint.arguments.is_body_streamed
    if route.max_body is not None:
        return BodyLimit(route.max_body, is_streamed=is_streamed)
    if route.auth is Auth.NONE:
        usual = min(usual, MAX_UNAUTHENTICATED_BODY)
    return BodyLimit(usual, is_streamed=is_streamed)

"""A server on a real socket, and clients that send raw bytes."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec
from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.trial.unittest import TestCase

from homeserver.accounts.sessions.requester import Requester
from homeserver.concurrency.memory_budget import MemoryBudget
from homeserver.protocol.errors import UnknownToken
from homeserver.web.addresses import TrustedProxies
from homeserver.web.html import Pages
from homeserver.web.pipeline import RequestLimits, RequestPipeline
from homeserver.web.rate_limits import Rate, RateLimits
from homeserver.web.router import Router
from homeserver.web.routes import Route
from homeserver.web.server import HttpServer

ALICE = Requester("@alice:test", "PHONE")
GUEST = Requester("@1:test", "BROWSER", is_guest=True)
ADMIN = Requester("@admin:test", "DESK", is_admin=True)
TOKENS = {"alice": ALICE, "guest": GUEST, "admin": ADMIN}


class Tokens:
    """An authenticator with a table; `slow` tokens are known only in the next reactor iteration."""

    def authenticate(self, token: str, request: object) -> Requester | Awaitable[Requester]:
        if token.startswith("slow-"):
            return self._later(token.removeprefix("slow-"))
        if token not in TOKENS:
            raise UnknownToken("Unrecognised access token")
        return TOKENS[token]

    async def _later(self, token: str) -> Requester:
        pause: Deferred[None] = Deferred()
        reactor.callLater(0, pause.callback, None)
        await pause
        return TOKENS[token]


@dataclass
class Response:
    """One response as it came over the wire; names of headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)


class Wire(Protocol):
    """A client's end of a connection."""

    def __init__(self) -> None:
        self.received = b""
        self.closed: Deferred[None] = Deferred()
        self._waiting: tuple[Callable[[bytes], bool], Deferred[None]] | None = None
        self._lost = False

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        if self._waiting is not None and self._waiting[0](self.received):
            done, self._waiting = self._waiting[1], None
            done.callback(None)

    def connectionLost(self, reason: object = None) -> None:
        self._lost = True
        self.closed.callback(None)
        if self._waiting is not None:
            done, self._waiting = self._waiting[1], None
            done.errback(ConnectionError(f"closed after {self.received!r}"))

    def write(self, data: bytes) -> None:
        self.transport.write(data)

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        token: str | None = None,
        headers: Sequence[tuple[str, str]] = (),
    ) -> None:
        lines = [f"{method} {path} HTTP/1.1", "Host: test"]
        if token is not None:
            lines.append(f"Authorization: Bearer {token}")
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        lines += [f"{name}: {value}" for name, value in headers]
        self.write("\r\n".join([*lines, "", ""]).encode() + (body or b""))

    async def response_begins(self) -> None:
        await self.until(bool)

    async def response(self, *, bodiless: bool = False) -> Response:
        """The next response. Fails where the connection ends before it."""
        await self.until(lambda data: b"\r\n\r\n" in data)
        head, _, rest = self.received.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = {
            name.lower(): value for name, _, value in (line.partition(": ") for line in lines)
        }
        status = int(first.split()[1])
        length = 0 if bodiless else int(headers.get("content-length", 0))
        self.received = rest
        await self.until(lambda data: len(data) >= length)
        body, self.received = self.received[:length], self.received[length:]
        return Response(status, headers, body)

    async def until(self, enough: Callable[[bytes], bool]) -> None:
        if not enough(self.received):
            if self._lost:
                raise ConnectionError(f"closed after {self.received!r}")
            done: Deferred[None] = Deferred()
            self._waiting = (enough, done)
            await done


class ServerTestCase(TestCase):
    """One server with routes of the test's own. `clock` is its clock, which stands still."""

    bounds = RequestLimits(max_body=1000, request_timeout=10.0, idle_timeout=20.0)
    all_bodies, share_of_bodies = 1_000_000, 1_000_000
    proxies: tuple[str, ...] = ()
    rates: ClassVar[dict[str, Rate]] = {}

    timeout = 60

    def serve(self, *routes: Route) -> HttpServer:
        self.clock = Clock()
        self.finished: list[tuple[str, str, int]] = []
        gate = RequestPipeline(
            Tokens(),
            RateLimits(self.clock, self.rates),
            TrustedProxies(self.proxies),
            self.bounds,
            self,
            bodies=MemoryBudget(self.all_bodies, self.share_of_bodies),
            pages=Pages("example.org"),
        )
        self.server = HttpServer(self.clock, Router(routes), gate)
        self.port = reactor.listenTCP(0, self.server, interface="127.0.0.1")
        self.addCleanup(self._stop, self.server, self.port)
        return self.server

    def request_finished(self, method: str, route: str, status: int, seconds: float) -> None:
        self.finished.append((method, route, status))

    async def connect(self) -> Wire:
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.port.getHost().port)
        wire = await connectProtocol(endpoint, Wire())
        self.addCleanup(wire.transport.abortConnection)
        return wire

    async def ask(self, method: str, path: str, body: bytes | None = None, **kw: Any) -> Response:
        """One request on a connection of its own."""
        wire = await self.connect()
        wire.request(method, path, body, **kw)
        return await wire.response(bodiless=method == "HEAD")

    async def turn(self, seconds: float = 0.0) -> None:
        """Let the reactor run, so that bytes get to their other end."""
        pause: Deferred[None] = Deferred()
        reactor.callLater(seconds, pause.callback, None)
        await pause

    async def until(self, true: Callable[[], object]) -> None:
        """Wait for something that the other end of a socket brings about."""
        while not true():
            await self.turn(0.005)

    async def _stop(self, server: HttpServer, port: IListeningPort) -> None:
        await (port.stopListening() or succeed(None))
        server.abort()
        await self.until(lambda: not server.connections and not server.sockets)

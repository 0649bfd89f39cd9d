"""The WebSocket transport on a real socket, with an engine of a few lines behind it."""

import base64
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, cast

import msgspec
from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol
from autobahn.websocket.compress import PerMessageDeflateOffer, PerMessageDeflateResponseAccept
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import ServerFactory
from twisted.trial.unittest import TestCase

from homeserver.accounts.sessions.requester import Requester
from homeserver.client_api.sync.stream import StreamFactory
from homeserver.client_api.sync.stream_api import StreamApi
from homeserver.client_api.sync.stream_connections import StreamConnections
from homeserver.client_api.sync.stream_methods import Call, Method, Methods, NoParams, SocketMethods
from homeserver.client_api.sync.stream_session import Services
from homeserver.concurrency.deferreds import wait_for_completion
from homeserver.concurrency.late_imports import Late
from homeserver.config.sections.limits import RateSettings, WebSocketSettings
from homeserver.protocol.errors import InvalidParam, UnknownToken
from homeserver.streams.sync_tokens import SyncToken
from homeserver.sync.subscription import BatchScheduler
from homeserver.sync.sync_request import SyncRequest
from homeserver.sync.sync_span import SyncSpan
from homeserver.sync.update import Update
from homeserver.web.addresses import TrustedProxies
from homeserver.web.pipeline import RequestPipeline
from homeserver.web.rate_limits import RateLimits
from homeserver.web.router import Router
from homeserver.web.server import HttpServer
from tests.web.raw_http import Wire

ROOM = "!room:test"
PATH = "/_matrix/client/v3/stream"
OPENING_HEADERS = (
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("Sec-WebSocket-Protocol", "m.json"),
)
ALICE = Requester("@alice:test", "PHONE")


class Engine:
    """An engine whose updates are the entries of one list; entry n has position n + 1."""

    def __init__(self) -> None:
        self.entries: list[str] = []
        self.wakers: set[Callable[[], None]] = set()
        self.requests: list[tuple[str | None, bool, str | None]] = []
        self.error: Exception | None = None

    async def build_request(self, caller: Requester, **options: Any) -> SyncRequest:
        text = options.get("filter_text")
        if text == "broken":
            raise InvalidParam("The filter is not JSON")
        full_state = options.get("full_state", False)
        self.requests.append((text, full_state, options.get("state_after")))
        return SyncRequest(caller)

    def received(self, request: SyncRequest, token: SyncToken) -> None:
        pass

    async def follow(self, user_id: str, wake: Callable[[], None]) -> Callable[[], None]:
        self.wakers.add(wake)
        return lambda: self.wakers.discard(wake)

    async def update(self, request: SyncRequest, since: SyncToken | None) -> Update:
        if self.error is not None:
            raise self.error
        update = Update(SyncSpan(since, SyncToken(len(self.entries))))
        if next_entries := self.entries[0 if since is None else since.base :]:
            update.joined = {ROOM: msgspec.json.encode(next_entries)}
        return update

    def append(self, *entries: str) -> None:
        self.entries += entries
        for wake in list(self.wakers):
            wake()


class Presence:
    """Counts the sockets that keep their user present."""

    def __init__(self) -> None:
        self.open = 0

    async def sync_began(
        self, user_id: str, device_id: str | None, set_presence: str | None
    ) -> None:
        self.open += 1

    def sync_ended(self, user_id: str, device_id: str | None, set_presence: str | None) -> None:
        self.open -= 1


class Tokens:
    """Authenticates by a table, which tests change."""

    def __init__(self) -> None:
        self.callers = {
            "alice": ALICE,
            "tablet": Requester("@alice:test", "TABLET"),
            "bob": Requester("@bob:test", "PHONE"),
            "guest": Requester("@1:test", "BROWSER", is_guest=True),
        }

    def authenticate(self, token: str, request: object) -> Requester | Awaitable[Requester]:
        if token not in self.callers:
            raise UnknownToken("Unrecognised access token")
        return self.callers[token]


class ExtraMethods:
    """Methods that no client has."""

    def __init__(self) -> None:
        self.held = 0
        self.release: Deferred[None] = Deferred()

    def methods(self) -> list[Method]:
        return [
            Method("fail", NoParams, self.fail),
            Method("hold", NoParams, self.hold),
            Method("limited", NoParams, self.limited, "message"),
        ]

    async def fail(self, call: Call, params: NoParams) -> None:
        raise ZeroDivisionError("a secret")

    async def hold(self, call: Call, params: NoParams) -> None:
        self.held += 1
        await wait_for_completion(self.release)

    async def limited(self, call: Call, params: NoParams) -> None:
        return None


class Client(WebSocketClientProtocol):
    """A client's socket; it keeps frames until the test reads them."""

    def __init__(self) -> None:
        super().__init__()
        self.frames: list[Any] = []
        self.sizes: list[int] = []
        self.protocol: str | None = None
        self.closed: Deferred[int | None] = Deferred()
        self._waiting: Deferred[None] | None = None

    def onConnect(self, response: Any) -> None:
        self.protocol = response.protocol

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.sizes.append(len(payload))
        self.frames.append(msgspec.json.decode(payload))
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            waiting.callback(None)

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        self.closed.callback(code)
        if self._waiting is not None:
            self._waiting.errback(ConnectionError(f"closed with {code}, {reason}"))

    async def frame(self) -> Any:
        """The next frame of the server."""
        while not self.frames:
            self._waiting = Deferred()
            await self._waiting
        return self.frames.pop(0)

    async def next_entries(self) -> Any:
        """The entries of the next update."""
        update = await self.frame()
        return update.get("rooms", {}).get("join", {}).get(ROOM, [])

    async def call(self, method: str, frame_id: str = "1", **params: Any) -> Any:
        """The answer to a call, without its id."""
        self.say({"id": frame_id, "method": method, "params": params})
        response = await self.frame()
        assert response.pop("id") == frame_id
        return response

    def say(self, frame: object) -> None:
        self.sendMessage(frame if isinstance(frame, bytes) else msgspec.json.encode(frame))


class StreamTestCase(TestCase):
    """A server with nothing but the transport. `settings` and `rates` are its settings."""

    settings = WebSocketSettings()
    rates: ClassVar[dict[str, RateSettings]] = {}
    timeout = 60

    def setUp(self) -> None:
        self.engine = Engine()
        self.presence = Presence()
        self.tokens = Tokens()
        self.extra_methods = ExtraMethods()
        self.connections = StreamConnections(cast("Any", reactor), self.settings)
        rate_limits = RateLimits(cast("Any", reactor), self.rates)
        methods = [*SocketMethods().methods(), *self.extra_methods.methods()]
        services = Services(
            cast("Any", self.engine),
            BatchScheduler(cast("Any", reactor)),
            cast("Any", self.presence),
            Methods(rate_limits, methods),
            self.settings.ack_window,
            self.settings.max_frame,
        )
        self.factory = StreamFactory(cast("Any", reactor), self.settings)
        factory = Late(reactor, "homeserver.client_api.sync.stream", lambda: self.factory)
        api = StreamApi(self.settings, factory, services, self.connections, self.tokens)
        gate = RequestPipeline(self.tokens, rate_limits, TrustedProxies(()))
        self.server = HttpServer(cast("Any", reactor), Router(api.routes()), gate)
        self.port = self.listen(self.server)

    def listen(self, factory: ServerFactory) -> int:
        port = cast("Any", reactor).listenTCP(0, factory, interface="127.0.0.1")

        async def stop() -> None:
            await port.stopListening()
            self.server.abort()
            while self.server.sockets or self.server.connections:
                await pause()

        self.addCleanup(lambda: Deferred.fromCoroutine(stop()))
        return int(port.getHost().port)

    async def open(
        self,
        token: str = "alice",
        query: str = "",
        *,
        by_subprotocol: bool = False,
        compressed: bool = False,
        subprotocol: str = "m.json",
    ) -> Client:
        """Open a socket; fails with autobahn's error where the server refuses."""
        protocols, headers = [subprotocol], {"Authorization": f"Bearer {token}"}
        if by_subprotocol:
            encoded = base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")
            protocols, headers = [f"m.token.{encoded}", subprotocol], {}
        url = f"ws://127.0.0.1:{self.port}{PATH}" + (f"?{query}" if query else "")
        factory = WebSocketClientFactory(url, headers=headers, protocols=protocols, reactor=reactor)
        factory.protocol = Client
        if compressed:
            factory.setProtocolOptions(
                perMessageCompressionOffers=[PerMessageDeflateOffer()],
                perMessageCompressionAccept=PerMessageDeflateResponseAccept,
            )
        client: Client = await self._endpoint().connect(factory)
        self.addCleanup(client.dropConnection, abort=True)
        await client.is_open
        return client

    async def get(
        self, query: str = "", *, token: str | None = None, path: str = PATH, upgrade: bool = True
    ) -> tuple[int, Any]:
        """Status and JSON of a response that is no WebSocket."""
        wire: Wire = await connectProtocol(self._endpoint(), Wire())
        self.addCleanup(wire.transport.abortConnection)
        headers = OPENING_HEADERS if upgrade else ()
        wire.request("GET", f"{path}?{query}", token=token, headers=headers)
        response = await wire.response()
        return response.status, response.json

    def _endpoint(self) -> TCP4ClientEndpoint:
        return TCP4ClientEndpoint(reactor, "127.0.0.1", self.port)


def pause(seconds: float = 0.01) -> "Deferred[None]":
    """Let the reactor work."""
    done: Deferred[None] = Deferred()
    cast("Any", reactor).callLater(seconds, done.callback, None)
    return done

"""WebSockets that begin as ordinary requests."""

import base64
from typing import Any

from twisted.internet import reactor

from homeserver.accounts.sessions.requester import Requester
from homeserver.protocol.errors import LimitExceeded
from homeserver.web.routes import Route
from homeserver.web.socket_upgrades import Upgrade
from homeserver.web.websocket import Socket, SocketFactory
from tests.web.raw_http import ServerTestCase, Wire

OPENING_HEADERS = (
    ("Connection", "keep-alive, Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
)
# The response to that key, from https://www.rfc-editor.org/rfc/rfc6455#section-1.3
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
PROTOCOL = ("Sec-WebSocket-Protocol", "m.json")


def text_frame(text: str) -> bytes:
    """A short text frame of a client, masked with zeros."""
    payload = text.encode()
    return bytes([0x81, 0x80 | len(payload)]) + b"\0\0\0\0" + payload


class Echo(Socket):
    """A socket that echoes each message with the name of its user."""

    def __init__(self, caller: Requester, closed: list[Any]) -> None:
        super().__init__()
        self.caller = caller
        self.closed = closed

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.sendMessage(self.caller.user_id.encode() + b": " + payload, isBinary)

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        self.closed.append(code)


class Echoes:
    def __init__(self) -> None:
        self.factory = SocketFactory(reactor, max_message=1000, ping_interval=30)
        self.closed: list[Any] = []
        self.full = False

    def routes(self) -> list[Route]:
        path = "/_matrix/client/v3/stream"
        return [
            Route("GET", path, self.stream, websocket=True),
            Route("GET", "/bare", self.bare, websocket=True),
            Route("GET", "/plain", self.plain),
        ]

    def stream(self, caller: Requester) -> Upgrade:
        if self.full:
            raise LimitExceeded(1000)
        return Upgrade(self.factory, Echo(caller, self.closed), ["m.json", "m.cbor"])

    async def bare(self, caller: Requester) -> Upgrade:
        return Upgrade(self.factory, Echo(caller, self.closed))

    def plain(self) -> None:
        return None


class WebSocketTestCase(ServerTestCase):
    def setUp(self) -> None:
        self.echoes = Echoes()
        self.serve(*self.echoes.routes())

    async def shake(
        self, wire: Wire, path: str = "/_matrix/client/v3/stream", **kw: Any
    ) -> dict[str, str]:
        """Open a WebSocket; returns the headers of the response."""
        headers = [*OPENING_HEADERS, *kw.pop("headers", [PROTOCOL])]
        wire.request("GET", path, headers=headers, **kw)
        response = await wire.response()
        self.assertEqual(response.status, 101, response)
        self.assertEqual(response.headers["sec-websocket-accept"], ACCEPT)
        return response.headers

    async def assert_echo(self, wire: Wire, user_id: str = "@alice:test") -> None:
        wire.write(text_frame("hello"))
        answer = f"{user_id}: hello".encode()
        await wire.until(lambda data: data == bytes([0x81, len(answer)]) + answer)
        wire.received = b""


class UpgradeTests(WebSocketTestCase):
    async def test_socket_works_after_the_handshake(self) -> None:
        """The everyday case: header token, subprotocol echoed, messages both ways."""
        wire = await self.connect()

        headers = await self.shake(wire, token="alice")

        self.assertEqual(headers["sec-websocket-protocol"], "m.json")
        await self.assert_echo(wire)
        await self.assert_echo(wire)
        self.assertEqual(self.finished, [("GET", "/_matrix/client/v3/stream", 101)])

    async def test_connection_that_served_requests_before_can_become_a_socket(self) -> None:
        """Clients and proxies reuse connections."""
        wire = await self.connect()
        wire.request("GET", "/plain", token="alice")
        await wire.response()

        await self.shake(wire, token="slow-alice")

        await self.assert_echo(wire)

    async def test_browser_sends_its_token_as_a_subprotocol(self) -> None:
        """Browsers cannot set headers on a WebSocket; the token is not echoed."""
        wire = await self.connect()
        entry = "m.token." + base64.urlsafe_b64encode(b"alice").decode().rstrip("=")

        headers = await self.shake(
            wire, headers=[("Sec-WebSocket-Protocol", f"{entry}, m.cbor"), ("Origin", "https://x")]
        )

        self.assertEqual(headers["sec-websocket-protocol"], "m.cbor")
        await self.assert_echo(wire)

    async def test_origin_and_host_do_not_matter(self) -> None:
        """A client with a token may come from any origin, as with CORS."""
        for origin in ("null", "https://evil.example", "file://", "nonsense"):
            wire = await self.connect()
            await self.shake(wire, token="alice", headers=[PROTOCOL, ("Origin", origin)])
            await self.assert_echo(wire)

    async def test_endpoint_without_subprotocols_needs_none(self) -> None:
        """Bridges offer no subprotocol."""
        wire = await self.connect()

        headers = await self.shake(wire, "/bare", token="alice", headers=[])

        self.assertNotIn("sec-websocket-protocol", headers)
        await self.assert_echo(wire)

    async def test_compression_is_negotiated_without_memory_for_each_socket(self) -> None:
        """Thousands of idle sockets must not keep thousands of windows of 32 KiB."""
        wire = await self.connect()
        offer = ("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits")

        headers = await self.shake(wire, token="alice", headers=[PROTOCOL, offer])

        self.assertIn("client_no_context_takeover", headers["sec-websocket-extensions"])

    async def test_socket_outlives_the_deadlines_of_requests(self) -> None:
        """A quiet socket is healthy."""
        wire = await self.connect()
        await self.shake(wire, token="alice")

        self.clock.advance(10_000)

        await self.assert_echo(wire)

    async def test_socket_is_removed_when_it_ends(self) -> None:
        """A server that runs for a year must not accumulate dead sockets."""
        wire = await self.connect()
        await self.shake(wire, token="alice")
        self.assertEqual((len(self.server.connections), len(self.server.sockets)), (0, 1))

        wire.transport.loseConnection()

        await self.until(lambda: not self.server.sockets)
        self.assertEqual(len(self.echoes.closed), 1)

    async def test_too_large_message_closes_the_socket_with_its_code(self) -> None:
        """The client gets the reason (1009), instead of a lost connection."""
        wire = await self.connect()
        await self.shake(wire, token="alice")

        wire.write(bytes([0x81, 0xFE]) + (1001).to_bytes(2, "big") + b"\0\0\0\0" + b"x" * 1001)

        await wire.until(
            lambda data: data[:1] == b"\x88" and data[2:4] == (1009).to_bytes(2, "big")
        )


class RefusalTests(WebSocketTestCase):
    async def assert_refused(self, status: int, errcode: str, **kw: Any) -> dict[str, str]:
        response = await self.ask("GET", "/_matrix/client/v3/stream", **kw)
        self.assertEqual((response.status, response.json["errcode"]), (status, errcode))
        return response.headers

    async def test_plain_get_must_upgrade(self) -> None:
        """A user who opens the address in a browser gets an explanation."""
        headers = await self.assert_refused(426, "M_UNRECOGNIZED")

        self.assertEqual(headers["upgrade"], "websocket")

    async def test_errors_before_the_handshake_are_ordinary_answers(self) -> None:
        """A client must see `M_UNKNOWN_TOKEN` and 429, which a WebSocket could not send."""
        headers = [*OPENING_HEADERS, PROTOCOL]
        await self.assert_refused(401, "M_MISSING_TOKEN", headers=headers)
        await self.assert_refused(401, "M_UNKNOWN_TOKEN", headers=headers, token="mallory")
        await self.assert_refused(403, "M_GUEST_ACCESS_FORBIDDEN", headers=headers, token="guest")
        self.echoes.full = True
        await self.assert_refused(429, "M_LIMIT_EXCEEDED", headers=headers, token="alice")

    async def test_unsupported_subprotocol_is_refused(self) -> None:
        """A later version of the protocol must not be mistaken for this one."""
        for offer in ([], [("Sec-WebSocket-Protocol", "m.xml, chat")]):
            headers = [*OPENING_HEADERS, *offer]
            await self.assert_refused(400, "M_INVALID_PARAM", headers=headers, token="alice")

    async def test_invalid_handshakes_are_refused(self) -> None:
        """A proxy that strips headers is detected here, not by a hanging client."""
        for name, value, status in (
            ("Sec-WebSocket-Version", "8", 426),
            ("Sec-WebSocket-Key", "short", 400),
            ("Sec-WebSocket-Key", "A" * 24, 400),
            ("Connection", "keep-alive", 400),
        ):
            headers = [(n, v) for n, v in OPENING_HEADERS if n != name] + [(name, value), PROTOCOL]
            errcode = "M_UNRECOGNIZED" if status == 426 else "M_INVALID_PARAM"
            await self.assert_refused(status, errcode, headers=headers, token="alice")

    async def test_refused_handshake_leaves_the_connection_usable(self) -> None:
        """The client falls back to the long poll on the same connection."""
        wire = await self.connect()
        wire.request("GET", "/_matrix/client/v3/stream", headers=OPENING_HEADERS, token="alice")
        self.assertEqual((await wire.response()).status, 400)

        wire.request("GET", "/plain", token="alice")

        self.assertEqual((await wire.response()).status, 200)

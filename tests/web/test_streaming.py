"""Responses that are sent part by part: their framing, slow clients, and ends before the end."""

from collections.abc import AsyncGenerator

import msgspec
from twisted.internet.defer import CancelledError, Deferred

from homeserver.protocol.errors import NotFound
from homeserver.web.request import CLIENT_GONE
from homeserver.web.routes import Auth, Route, Streamed
from tests.web.raw_http import ServerTestCase, Wire

MEBIBYTE = 1_048_576
END = b"\r\n0\r\n\r\n"


class StreamingTests(ServerTestCase):
    def setUp(self) -> None:
        self.made = 0
        self.ended: list[str] = []
        self.pause: Deferred[None] | None = None
        self.serve(
            Route("GET", "/few", self.few, Auth.NONE),
            Route("GET", "/many", self.many, Auth.NONE),
            Route("GET", "/missing", self.missing, Auth.NONE),
            Route("GET", "/broken", self.broken, Auth.NONE),
            Route("GET", "/waiting", self.waiting, Auth.NONE, cancellable=True),
        )

    async def few(self) -> Streamed:
        async def parts() -> AsyncGenerator[bytes, None]:
            yield b'{"a":'
            await self.turn()
            yield b"[1,2]"
            yield b"}"

        return Streamed(parts())

    def many(self) -> Streamed:
        async def parts() -> AsyncGenerator[bytes, None]:
            try:
                yield b"["
                for _ in range(100):
                    self.made += 1
                    yield b" " * MEBIBYTE
                    await self.turn()
                yield b"]"
            finally:
                self.ended.append("many")

        return Streamed(parts())

    def missing(self) -> Streamed:
        async def parts() -> AsyncGenerator[bytes, None]:
            await self.turn()
            raise NotFound("No such thing")
            yield b""

        return Streamed(parts())

    def broken(self) -> Streamed:
        async def parts() -> AsyncGenerator[bytes, None]:
            yield b"["
            await self.turn()
            raise KeyError("a secret detail")

        return Streamed(parts())

    def waiting(self) -> Streamed:
        async def parts() -> AsyncGenerator[bytes, None]:
            yield b"["
            self.pause = Deferred()
            try:
                await self.pause
            except CancelledError:
                self.ended.append("waiting")
                raise

        return Streamed(parts())

    async def test_the_parts_are_one_json_text(self) -> None:
        """Any HTTP client reads the response as if it had been sent at once."""
        wire = await self.connect()
        wire.request("GET", "/few")
        head, body = await chunked(wire)

        self.assertIn(b"HTTP/1.1 200 OK\r\n", head)
        self.assertIn(b"Transfer-Encoding: chunked", head)
        self.assertIn(b"Content-Type: application/json", head)
        self.assertNotIn(b"Content-Length", head)
        self.assertEqual(msgspec.json.decode(body), {"a": [1, 2]})
        self.assertEqual(self.finished, [("GET", "/few", 200)])

    async def test_the_connection_serves_the_next_request(self) -> None:
        """A client needs no new connection after a large response."""
        wire = await self.connect()
        for _ in range(2):
            wire.request("GET", "/few")
            await chunked(wire)
            wire.received = b""

    async def test_an_old_proxy_gets_the_end_by_the_end_of_the_connection(self) -> None:
        """HTTP/1.0, which reverse proxies speak by default, knows no chunks."""
        wire = await self.connect()
        wire.write(b"GET /few HTTP/1.0\r\nHost: test\r\n\r\n")
        await wire.closed

        head, _, body = wire.received.partition(b"\r\n\r\n")
        self.assertNotIn(b"Transfer-Encoding", head)
        self.assertIn(b"Connection: close", head)
        self.assertEqual(msgspec.json.decode(body), {"a": [1, 2]})

    async def test_head_has_no_body(self) -> None:
        """Monitoring uses HEAD."""
        wire = await self.connect()
        wire.request("HEAD", "/few")
        await self.until(lambda: self.finished)
        wire.request("GET", "/few")
        await wire.until(lambda data: data.endswith(b"0\r\n\r\n"))

        self.assertEqual(wire.received.count(b"\r\n\r\n"), 3)

    async def test_an_error_before_the_first_part_is_an_ordinary_response(self) -> None:
        """The client learns what was wrong with its request."""
        response = await self.ask("GET", "/missing")

        self.assertEqual((response.status, response.json["errcode"]), (404, "M_NOT_FOUND"))

    async def test_after_an_error_the_response_does_not_look_complete(self) -> None:
        """A client must not take half of its keys for all of them."""
        wire = await self.connect()
        wire.request("GET", "/broken")
        await wire.closed

        self.assertFalse(wire.received.endswith(b"0\r\n\r\n"))
        self.assertNotIn(b"secret", wire.received)
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
        self.assertEqual(self.finished, [("GET", "/broken", 503)])

    async def test_no_more_is_made_than_the_client_reads(self) -> None:
        """A slow client costs a few parts of memory, not the whole response."""
        wire = await self.connect()
        wire.transport.pauseProducing()
        wire.request("GET", "/many")
        await self.until(lambda: self.made)
        made = -1
        while made != self.made:
            made = self.made
            await self.turn(0.05)

        self.assertLess(self.made, 50)
        received: list[bytes] = []
        wire.dataReceived = received.append
        wire.transport.resumeProducing()
        await self.until(lambda: b"".join(received[-2:]).endswith(END))
        wire.received = b"".join(received)
        _, body = await chunked(wire)

        self.assertEqual(body, b"[" + b" " * (100 * MEBIBYTE) + b"]")
        self.assertEqual(self.ended, ["many"])

    async def test_a_client_that_does_not_read_is_disconnected(self) -> None:
        """It would hold memory for as long as it likes."""
        wire = await self.connect()
        wire.transport.pauseProducing()
        wire.request("GET", "/many")
        [connection] = self.server.connections
        await self.until(lambda: connection._deadline is not None and self.made)

        while self.server.connections:
            self.clock.advance(20.0)
            await self.turn(0.01)

        self.assertLess(self.made, 100)
        await self.until(lambda: self.ended)
        self.assertEqual(self.finished, [("GET", "/many", CLIENT_GONE)])

    async def test_the_work_ends_with_the_connection(self) -> None:
        """Nothing more is read from the database for a client that has gone."""
        wire = await self.connect()
        wire.request("GET", "/many")
        await wire.response_begins()
        wire.transport.abortConnection()

        await self.until(lambda: self.ended)

        self.assertLess(self.made, 100)
        self.assertEqual(self.finished, [("GET", "/many", CLIENT_GONE)])

    async def test_a_stop_of_the_server_ends_it(self) -> None:
        """The server does not wait for a response that takes minutes."""
        wire = await self.connect()
        wire.request("GET", "/waiting")
        await self.until(lambda: self.pause)

        self.server.cancel_waits()
        await wire.closed

        self.assertEqual(self.ended, ["waiting"])


async def chunked(wire: Wire) -> tuple[bytes, bytes]:
    """The head and the body of the one response that comes in chunks."""
    await wire.until(lambda data: data.endswith(END))
    head, _, rest = wire.received.partition(b"\r\n\r\n")
    chunks = []
    at = 0
    while True:
        line_end = rest.index(b"\r\n", at)
        size = int(rest[at:line_end], 16)
        if not size:
            return head, b"".join(chunks)
        chunks.append(rest[line_end + 2 : line_end + 2 + size])
        at = line_end + 2 + size + 2

"""JSON posts: responses as servers send them, whole or in pieces, and servers that misbehave."""

from collections.abc import Awaitable
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import maybeDeferred
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from homeserver.concurrency.deferreds import gather_all
from homeserver.config.settings import OutboundHttpSettings
from homeserver.outbound import json_posts
from homeserver.outbound.http_client import OutboundError
from homeserver.outbound.json_posts import JsonPosts, PostResponse
from tests.support.reactor import pause, until

PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
MAX_BODY = 1_000


class ScriptedServer(Protocol):
    """Responds to each request with the next of the factory's `responses`, byte by byte or whole.

    `None` closes the connection, `b""` responds nothing.
    """

    factory: Any
    _buffer = b""

    def connectionMade(self) -> None:
        self.factory.connections += 1
        self.factory.open += 1

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.factory.open -= 1

    def dataReceived(self, data: bytes) -> None:
        self._buffer += data
        head, end, body = self._buffer.partition(b"\r\n\r\n")
        if not end or len(body) < int(head.lower().partition(b"content-length: ")[2]):
            return
        self.factory.requests.append(self._buffer)
        self._buffer = b""
        response = self.factory.responses.pop(0)
        assert self.transport is not None
        if response is None:
            self.transport.loseConnection()
            return
        if self.factory.is_slow:
            for place in range(len(response)):
                reactor.callLater(  # type: ignore[attr-defined]
                    place * 0.0001, self.transport.write, response[place : place + 1]
                )
        else:
            self.transport.write(response)
        if b"close" in response or b"HTTP/1.0" in response:
            reactor.callLater(0.05, self.transport.loseConnection)  # type: ignore[attr-defined]


class JsonPostsTests(TestCase):
    timeout = 30

    def setUp(self) -> None:
        self.server: Any = Factory.forProtocol(ScriptedServer)
        self.server.noisy = False
        self.server.responses = []
        self.server.requests = []
        self.server.connections = self.server.open = 0
        self.server.is_slow = False
        port = reactor.listenTCP(0, self.server, interface="127.0.0.1")  # type: ignore[attr-defined]
        self.addCleanup(lambda: maybeDeferred(port.stopListening))
        self.url = f"http://127.0.0.1:{port.getHost().port}/path"
        self.posts = JsonPosts(reactor, OutboundHttpSettings(allow_private_addresses=True), "tests")

    async def clean_up(self) -> None:
        await pause(0.06)  # in which the server closes connections
        await self.posts.stop()

    async def post(self, *responses: bytes | None, timeout: float = 10.0) -> PostResponse:
        self.server.responses += responses
        return await self.posts.post(self.url, b'{"a":1}', max_body=MAX_BODY, timeout=timeout)

    async def assert_fails(self, attempt: Awaitable[Any]) -> None:
        try:
            await attempt
        except OutboundError:
            return
        self.fail("it did not fail")

    async def test_a_request_is_one_that_any_server_understands(self) -> None:
        """The head names the host, and the body is as given."""
        await self.post(PLAIN)

        head, _, body = self.server.requests[0].partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        self.assertEqual(lines[0], b"POST /path HTTP/1.1")
        self.assertIn(b"Host: 127.0.0.1:" + self.url.split(":")[2].split("/")[0].encode(), lines)
        self.assertIn(b"Content-Type: application/json", lines)
        self.assertEqual(body, b'{"a":1}')
        await self.clean_up()

    async def test_connections_are_used_again(self) -> None:
        """To connect costs more than a request."""
        for _ in range(3):
            self.assertEqual(await self.post(PLAIN), PostResponse(200, b"{}"))

        self.assertEqual(self.server.connections, 1)
        await self.clean_up()

    async def test_responses_of_all_forms_are_read(self) -> None:
        """Whole, and byte by byte."""
        chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        forms = {
            PLAIN: b"{}",
            b"HTTP/1.1 100 Continue\r\n\r\n" + PLAIN: b"{}",
            b"HTTP/1.1 204 No Content\r\n\r\n": b"",
            b"HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n": b"",
            b"HTTP/1.0 200 OK\r\n\r\n{}": b"{}",
            b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{}": b"{}",
            chunked + b"2;x=y\r\n{}\r\n0\r\n\r\n": b"{}",
            chunked + b"1\r\n{\r\n1\r\n}\r\n0\r\nTrailer: yes\r\n\r\n": b"{}",
        }
        for is_slow in (False, True):
            self.server.is_slow = is_slow
            for form, body in forms.items():
                self.assertEqual((await self.post(form)).body, body, form)
        await self.clean_up()

    async def test_a_connection_that_was_closed_while_idle_is_no_failure(self) -> None:
        """Servers close idle connections whenever they like."""
        await self.post(PLAIN)

        self.assertEqual((await self.post(None, PLAIN)).body, b"{}")

        self.assertEqual(self.server.connections, 2)
        await self.assert_fails(self.post(None, None))
        await self.clean_up()

    async def test_a_connection_that_nobody_uses_is_closed(self) -> None:
        """Any user can name a gateway, and its connection must not stay open for good."""
        self.patch(json_posts, "IDLE_SECONDS", 0.05)
        await self.post(PLAIN)
        self.assertEqual(self.server.open, 1)

        await until(lambda: self.server.open == 0)

        self.assertEqual(await self.post(PLAIN), PostResponse(200, b"{}"))
        await self.clean_up()

    async def test_idle_connections_are_bounded_in_all(self) -> None:
        """A thousand gateways with a hundred connections each would be all that there may be."""
        self.patch(json_posts, "MAX_IDLE_IN_ALL", 3)
        self.posts = JsonPosts(reactor, OutboundHttpSettings(allow_private_addresses=True), "tests")
        other = self.url.replace("127.0.0.1", "localhost")
        for url in (self.url, other):
            self.server.responses += [PLAIN] * 2
            posts = [self.posts.post(url, b"{}", max_body=9, timeout=9.0) for _ in range(2)]
            await gather_all(posts)
        self.assertEqual(self.server.connections, 4)

        await until(lambda: self.server.open == 2)

        await self.post(PLAIN)
        self.assertEqual(self.server.connections, 5)
        await self.clean_up()

    async def test_what_is_no_response_fails(self) -> None:
        """Nothing of it is kept, and the next request gets a connection of its own."""
        head = b"HTTP/1.1 200 OK\r\n"
        for garbage in (
            b"SSH-2.0-OpenSSH\r\n\r\n",
            b"HTTP/2 200 OK\r\n\r\n",
            head + b"no colon\r\n\r\n",
            head + b"Content-Length: -1\r\n\r\n",
            head + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
            head + b"Content-Length: 1001\r\n\r\n",
            head + b"Transfer-Encoding: gzip\r\n\r\n",
            head + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
            head + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{}\r\n",
            head + b"Transfer-Encoding: chunked\r\n\r\nfff\r\n" + b"x" * 2_000,
            head + b"Connection: close\r\n\r\n" + b"x" * 2_000,
            head + b"X: " + b"x" * 20_000,
            b"HTTP/1.1 100 Continue\r\n\r\n" * 1_000,
            b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
            head + b"Transfer-Encoding: chunked\r\n\r\n" + b"0\r\n" + b"a: b\r\n" * 5_000,
        ):
            await self.assert_fails(self.post(garbage))
            self.assertEqual(await self.post(PLAIN), PostResponse(200, b"{}"), garbage)
        await self.clean_up()

    async def test_what_comes_unasked_ends_the_connection(self) -> None:
        """A second response would be taken for that of the next request."""
        await self.post(PLAIN + b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n7")

        self.assertEqual((await self.post(PLAIN)).body, b"{}")
        self.assertEqual(self.server.connections, 2)
        await self.clean_up()

    async def test_a_server_that_does_not_respond_is_given_up(self) -> None:
        """Within the time, whatever part of a response came."""
        await self.assert_fails(self.post(b"", timeout=0.1))
        await self.assert_fails(self.post(b"HTTP/1.1 200 OK\r\n", timeout=0.1))
        await self.clean_up()

    async def test_private_addresses_are_refused(self) -> None:
        """Unless the settings allow them."""
        public = JsonPosts(reactor, OutboundHttpSettings(), "tests")

        await self.assert_fails(public.post(self.url, b"{}", max_body=10, timeout=5.0))
        await self.assert_fails(self.posts.post("ftp://x/", b"{}", max_body=10, timeout=5.0))

        self.assertEqual(self.server.requests, [])
        await public.stop()
        await self.clean_up()

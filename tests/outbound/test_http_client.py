"""Outgoing requests: allowed targets, and limits of time and size."""

import gzip
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.error import ConnectionDone
from twisted.internet.ssl import DefaultOpenSSLContextFactory
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from homeserver.config.settings import OutboundHttpSettings
from homeserver.outbound import networks
from homeserver.outbound.http_client import MAX_REDIRECTS, OutboundClient, OutboundError, normal_url
from tests.storage.test_tls import make_certificate

COMPRESSED = gzip.compress(bytes(10_000_000))


class RemoteServer(Resource):
    """A remote server: the path determines its response."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[bytes, bytes, bytes]] = []
        self.redirect_to = b"/end"
        self.tokens: list[str | None] = []
        self.cookies: list[str | None] = []
        self.encodings: list[str | None] = []
        self.unanswered: list[Deferred[type[Exception]]] = []  # how the connection ended

    def render(self, request: Request) -> Any:
        assert request.content is not None
        self.seen.append((request.method, request.uri, request.content.read()))
        self.tokens.append(request.getHeader("Authorization"))
        self.cookies.append(request.getHeader("Cookie"))
        self.encodings.append(request.getHeader("Accept-Encoding"))
        request.setHeader("Set-Cookie", "a=b")
        path = request.path.decode()
        if path == "/redirect":
            request.setResponseCode(302)
            request.setHeader("Location", self.redirect_to)
        elif path == "/silent":
            return NOT_DONE_YET
        elif path == "/large":
            return b"x" * 5_000
        elif path == "/trickle":
            request.write(b"x" * 600)
            request.write(b"x" * 600)
            ended = request.notifyFinish()
            self.unanswered.append(ended.addErrback(lambda failure: failure.type))
            return NOT_DONE_YET
        elif path == "/compressed":
            request.setHeader("Content-Encoding", "gzip")
            return COMPRESSED
        elif path == "/missing":
            request.setResponseCode(404)
        return f"cookie: {request.getHeader('Cookie')}".encode()


class OutboundTestCase(TestCase):
    settings = OutboundHttpSettings(allow_private_addresses=True)

    def setUp(self) -> None:
        self.remote = RemoteServer()
        self.url = f"http://127.0.0.1:{self.listen(Site(self.remote))}"
        self.client = self.make_client(self.settings)

    def make_client(self, settings: OutboundHttpSettings) -> OutboundClient:
        client = OutboundClient(reactor, settings)
        self.addCleanup(lambda: Deferred.fromCoroutine(client.stop()))
        return client

    def listen(self, site: Site) -> int:
        port = reactor.listenTCP(0, site, interface="127.0.0.1")  # type: ignore[attr-defined]
        self.addCleanup(port.stopListening)
        number: int = port.getHost().port
        return number

    async def fails(self, attempt: Any, text: str) -> None:
        """The attempt fails, with a reason that contains the text."""
        error = await self.assertFailure(ensureDeferred(attempt), OutboundError)
        self.assertIn(text, str(error))


class ExchangeTests(OutboundTestCase):
    async def test_an_answer_is_status_headers_and_body(self) -> None:
        """An error status of the remote server is a response too."""
        answer = await self.client.request("GET", f"{self.url}/missing")

        self.assertEqual(answer.status, 404)
        self.assertEqual(answer.headers.getRawHeaders("Set-Cookie"), ["a=b"])
        self.assertTrue(answer.body.startswith(b"cookie:"))

    async def test_a_form_is_sent_as_pages_send_it(self) -> None:
        """Services that check captchas accept only forms."""
        await self.client.post_form(f"{self.url}/form", {"a": "b c", "d": "&"})

        self.assertEqual(self.remote.seen, [(b"POST", b"/form", b"a=b+c&d=%26")])

    async def test_cookies_are_not_kept(self) -> None:
        """Requests for different users have nothing to do with each other."""
        await self.client.request("GET", self.url)

        answer = await self.client.request("GET", self.url)

        self.assertEqual(answer.body, b"cookie: None")

    async def test_cookies_are_not_kept_from_one_redirect_to_the_next(self) -> None:
        """Pages that want one to be sent back are for people."""
        await self.client.request("GET", f"{self.url}/redirect")

        self.assertEqual(self.remote.cookies, [None, None])

    async def test_bodies_are_not_decompressed(self) -> None:
        """A few bytes would become more than the bound before they are counted."""
        answer = await self.client.request("GET", f"{self.url}/compressed", max_body=30_000)

        self.assertEqual(answer.body, COMPRESSED)
        self.assertEqual(self.remote.encodings, [None])

    async def test_urls_are_sent_as_they_are(self) -> None:
        """The service that made one knows what it means."""
        path = "/a%2Fb/../c//d;e?f=%5B&g=h+i&&j#"

        await self.client.request("GET", self.url + path)

        self.assertEqual(self.remote.seen[0][1].decode(), path.rstrip("#"))

    async def test_redirects_are_followed_and_reported(self) -> None:
        """Pages move."""
        answer = await self.client.request("GET", f"{self.url}/redirect")

        self.assertEqual((answer.status, answer.url), (200, f"{self.url}/end"))

    async def test_body_is_sent_to_one_server_only(self) -> None:
        """A redirect of a POST is returned unchanged; the body may be a secret."""
        answer = await self.client.request("POST", f"{self.url}/redirect", body=b"secret")

        self.assertEqual(answer.status, 302)
        self.assertEqual(len(self.remote.seen), 1)

    async def test_a_token_is_sent_to_one_server_only(self) -> None:
        """A server that receives a token cannot make this one send it to another server."""
        headers = {"Authorization": "Bearer swordfish"}

        await self.client.request("GET", f"{self.url}/redirect", headers=headers)

        self.assertEqual(self.remote.tokens, ["Bearer swordfish", None])

    async def test_a_circle_of_redirects_ends(self) -> None:
        """A remote server cannot keep this one busy."""
        self.remote.redirect_to = b"/redirect"

        await self.fails(self.client.request("GET", f"{self.url}/redirect"), "redirects")

        self.assertEqual(len(self.remote.seen), MAX_REDIRECTS + 1)

    async def test_a_response_that_is_too_large_is_aborted(self) -> None:
        """Neither an announced nor an unannounced large response fills the memory."""
        for path in ("/large", "/trickle"):
            attempt = self.client.request("GET", self.url + path, max_body=1_000)
            await self.fails(attempt, "too large")

    async def test_silent_server_is_given_up(self) -> None:
        """Before the response, and in the middle of it."""
        for path in ("/silent", "/trickle"):
            await self.fails(
                self.client.request("GET", self.url + path, timeout=0.1), "within 0.1 seconds"
            )

    async def test_nothing_is_received_when_the_time_is_over(self) -> None:
        """The connection ends with the exchange."""
        attempt = self.client.request("GET", f"{self.url}/trickle", timeout=0.2)
        await self.fails(attempt, "within 0.2 seconds")

        self.assertIs(await self.remote.unanswered[0], ConnectionDone)

    async def test_unreachable_server_is_an_error_with_a_reason(self) -> None:
        """The log has the reason, whatever it was."""
        await self.fails(self.client.request("GET", "http://127.0.0.1:1/"), "refused")
        await self.fails(self.client.request("GET", "http://name.invalid/"), "DNS")


class PrivateAddressTests(OutboundTestCase):
    settings = OutboundHttpSettings()

    async def test_addresses_of_this_network_are_refused(self) -> None:
        """An account gives no access to the operator's network."""
        port = self.url.rpartition(":")[2]
        for host in ("127.0.0.1", "localhost", "[::1]", "0x7f000001", "2130706433", "127.1"):
            attempt = self.client.request("GET", f"http://{host}:{port}/")
            await self.assertFailure(ensureDeferred(attempt), OutboundError)

        self.assertEqual(self.remote.seen, [])

    async def test_the_reason_names_the_address(self) -> None:
        """The operator finds in the log which setting would allow it."""
        await self.fails(self.client.request("GET", self.url), "127.0.0.1 is not a public address")
        attempt = self.client.request("GET", "http://[fd00::1]/")
        await self.fails(attempt, "fd00::1 is not a public address")

    async def test_redirects_are_checked_like_the_first_request(self) -> None:
        """A public page cannot send the server to a private one."""
        self.patch(networks, "is_public_address", lambda host: host == "127.0.0.1")
        self.remote.redirect_to = self.url.replace("127.0.0.1", "127.0.0.2").encode()

        attempt = self.client.request("GET", f"{self.url}/redirect")
        await self.fails(attempt, "127.0.0.2 is not a public address")

        self.assertEqual(len(self.remote.seen), 1)


class CertificateTests(OutboundTestCase):
    async def test_certificates_are_checked_unless_the_settings_say_otherwise(self) -> None:
        """A server that claims to be a push gateway must prove its name."""
        with TemporaryDirectory() as folder:
            certificate, key = make_certificate(Path(folder))
            context = DefaultOpenSSLContextFactory(str(key), str(certificate))
        port = reactor.listenSSL(  # type: ignore[attr-defined]
            0, Site(self.remote), context, interface="127.0.0.1"
        )
        self.addCleanup(port.stopListening)
        url = f"https://localhost:{port.getHost().port}/"
        careless = self.make_client(
            OutboundHttpSettings(allow_private_addresses=True, verify_certificates=False)
        )

        await self.fails(self.client.request("GET", url), "certificate")

        self.assertEqual((await careless.request("GET", url)).status, 200)


@pytest.mark.parametrize(
    ("url", "normal"),
    [
        ("https://example.org", "https://example.org/"),
        ("https://Example.org:8443/a?b=c#d", "https://example.org:8443/a?b=c"),
        ("https://bücher.example/straße?ö", "https://xn--bcher-kva.example/stra%C3%9Fe?%C3%B6"),
        ("http://[2001:db8::1]:80/%2F", "http://[2001:db8::1]:80/%2F"),
        ("https://example.org/a b\r\nHost: x", "https://example.org/a%20bHost:%20x"),
    ],
)
def test_urls_are_made_plain(url: str, normal: str) -> None:
    """The written and the sent form of a URL differ."""
    assert normal_url(url) == normal


@pytest.mark.parametrize(
    "url",
    [
        "",
        "example.org",
        "ftp://example.org/",
        "file:///etc/passwd",
        "https://user:password@example.org/",
        "https:///path",
        "https://example.org:port/",
        "https://[::1/",
        "https://a..b/",
    ],
)
def test_other_urls_are_refused(url: str) -> None:
    """Only web pages are requested."""
    with pytest.raises(OutboundError):
        normal_url(url)

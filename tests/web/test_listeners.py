"""Listeners: ports, sockets, certificates, and a stop that loses no responses."""

import os
import socket
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP6ClientEndpoint,
    UNIXClientEndpoint,
    connectProtocol,
    wrapClientTLS,
)
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator, IStreamClientEndpoint
from twisted.internet.ssl import CertificateOptions
from zope.interface import implementer

from homeserver.config.errors import CertificateError
from homeserver.web import listeners as listeners_module
from homeserver.web.addresses import TrustedProxies
from homeserver.web.listeners import CannotListen, Listeners
from homeserver.web.pipeline import RequestPipeline
from homeserver.web.rate_limits import RateLimits
from homeserver.web.router import Router
from homeserver.web.routes import Auth, Route
from homeserver.web.server import HttpServer
from homeserver.web.shutdown import Shutdown
from homeserver.web.tls import Certificate
from tests.support.folders import temporary_folder
from tests.web.raw_http import Tokens, Wire
from tests.web.test_websocket import Echoes, WebSocketTestCase


@dataclass(frozen=True)
class Files:
    certificate: Path
    private_key: Path
    acme: bool = False


@dataclass(frozen=True)
class Settings:
    port: int | None = 0
    addresses: tuple[str, ...] = ("127.0.0.1",)
    path: Path | None = None
    mode: str = "660"
    tls: Files | None = None
    resources: tuple[str, ...] = ("client",)


def write_certificate(files: Files, name: str) -> None:
    """A self-signed certificate for `name`."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    files.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files.private_key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


class Waits:
    """Routes that wait for the test."""

    def __init__(self, shutdown: Shutdown) -> None:
        self.shutdown = shutdown
        self.waiting: list[Deferred[Any]] = []

    def routes(self) -> list[Route]:
        return [
            Route("GET", "/now", self.now, Auth.NONE),
            Route("POST", "/write", self.wait, Auth.NONE),
            Route("GET", "/wait", self.wait, Auth.NONE, cancellable=True),
            Route("GET", "/poll", self.poll, Auth.NONE, cancellable=True),
        ]

    def now(self) -> dict[str, bool]:
        return {"now": True}

    async def wait(self) -> Any:
        done: Deferred[Any] = Deferred()
        self.waiting.append(done)
        return await done

    async def poll(self) -> dict[str, bool]:
        done: Deferred[dict[str, bool]] = Deferred()
        self.waiting.append(done)
        self.shutdown.notify(lambda: done.callback({"ended": True}))
        return await done


class ListenersTestCase(WebSocketTestCase):
    def setUp(self) -> None:
        self.shutdown = Shutdown()
        self.waits = Waits(self.shutdown)
        self.echoes = Echoes()
        folder = temporary_folder(self)
        self.files = Files(folder / "tls.crt", folder / "tls.key")
        self.finished = []

    def listen(self, *settings: Settings) -> Listeners:
        gate = RequestPipeline(Tokens(), RateLimits(reactor, {}), TrustedProxies([]), observer=self)
        health = [Route("GET", "/health", self.waits.now, Auth.NONE)]
        groups = {"client": [*self.waits.routes(), *self.echoes.routes()], "health": health}

        def make_server(router: Router) -> HttpServer:
            self.server = HttpServer(reactor, router, gate)
            return self.server

        listeners = Listeners(reactor, settings, groups, make_server, self.shutdown)
        listeners.start()
        self.ports = [getattr(address, "port", None) for address in listeners.addresses]
        self.addCleanup(lambda: ensureDeferred(listeners.stop(0)))
        return listeners

    async def connect_by(self, endpoint: IStreamClientEndpoint) -> Wire:
        wire = await connectProtocol(endpoint, Wire())
        self.addCleanup(wire.transport.abortConnection)
        return wire

    async def connect(self, index: int = 0) -> Wire:
        return await self.connect_by(TCP4ClientEndpoint(reactor, "127.0.0.1", self.ports[index]))

    async def connect_tls(self, offered: Sequence[bytes] = ()) -> Wire:
        """A TLS connection; `offered` are the protocols in the TLS handshake, if any."""
        endpoint = HostnameEndpoint(reactor, b"127.0.0.1", self.ports[0])
        return await self.connect_by(wrapClientTLS(_Trusting(offered), endpoint))

    async def assert_served(self, wire: Wire, path: str = "/now") -> None:
        wire.request("GET", path)
        self.assertEqual((await wire.response()).json, {"now": True})


@implementer(IOpenSSLClientConnectionCreator)
class _Trusting:
    """TLS options that accept any certificate."""

    def __init__(self, offered: Sequence[bytes]) -> None:
        self._offered = offered

    def clientConnectionForTLS(self, protocol: object) -> SSL.Connection:
        connection = SSL.Connection(CertificateOptions(verify=False).getContext(), None)
        if self._offered:
            connection.set_alpn_protos(list(self._offered))
        return connection


class ListeningTests(ListenersTestCase):
    async def test_each_listener_serves_only_its_resources(self) -> None:
        """Health and metrics may have a port that the world does not see."""
        self.listen(Settings(), Settings(resources=("health",)))

        await self.assert_served(await self.connect(0))
        health = await self.connect(1)
        await self.assert_served(health, "/health")
        health.request("GET", "/now")
        self.assertEqual((await health.response()).status, 404)

    async def test_unix_socket_has_its_mode_and_replaces_a_dead_one(self) -> None:
        """A crash leaves the file behind; the next start must not stumble over it."""
        path = str(temporary_folder(self) / "socket")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
            dead.bind(path)
        self.listen(Settings(port=None, path=Path(path), mode="600"))

        wire = await self.connect_by(UNIXClientEndpoint(reactor, path))

        await self.assert_served(wire)
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)  # noqa: PTH116

    def test_unix_socket_in_use_is_not_taken_away(self) -> None:
        """Two servers with the same configuration must not fight."""
        settings = Settings(port=None, path=temporary_folder(self) / "socket")
        self.listen(settings)

        with self.assertRaisesRegex(CannotListen, f"cannot listen on {settings.path}: another pr"):
            self.listen(settings)

    def test_port_in_use_is_an_error_that_leaves_no_port_open(self) -> None:
        """A server that started half would confuse its operator."""
        self.listen(Settings())
        taken = self.ports[0]

        with self.assertRaisesRegex(CannotListen, f"on 127.0.0.1:{taken}: another program"):
            self.listen(Settings(), Settings(port=taken))

    def test_unknown_resource_is_refused(self) -> None:
        """A listener that serves nothing is useless."""
        with self.assertRaises(ValueError):
            self.listen(Settings(resources=("gopher",)))

    async def test_all_addresses_get_the_same_free_port(self) -> None:
        """Port 0 is what tests and trials use."""
        self.listen(Settings(addresses=("127.0.0.1", "127.0.0.2", "::1")))

        self.assertEqual(len(set(self.ports)), 1)

    async def test_all_addresses_of_both_kinds_are_served_by_one_port(self) -> None:
        """Where `::` takes IPv4 connections as well, `0.0.0.0` cannot be opened beside it."""
        self.listen(Settings(addresses=("0.0.0.0", "::")))

        await self.assert_served(await self.connect())
        if listeners_module._has_address("::1"):
            endpoint = TCP6ClientEndpoint(reactor, "::1", self.ports[0])
            await self.assert_served(await self.connect_by(endpoint))


class TlsTests(ListenersTestCase):
    async def test_tls_listener_speaks_https_and_websocket(self) -> None:
        """No proxy is needed for a small server."""
        write_certificate(self.files, "one.test")
        self.listen(Settings(tls=self.files))
        wire = await self.connect_tls()

        await self.assert_served(wire)
        await self.shake(wire, token="slow-alice")

        await self.assert_echo(wire)

    async def test_client_that_offers_protocols_gets_http_1_1(self) -> None:
        """Browsers, curl and most libraries offer protocols (ALPN), one of which is HTTP/1.1."""
        write_certificate(self.files, "one.test")
        self.listen(Settings(tls=self.files))

        for offered in ([b"http/1.1"], [b"h2", b"http/1.1"], [b"http/1.1", b"http/1.0"]):
            wire = await self.connect_tls(offered)

            await self.assert_served(wire)
            self.assertEqual(wire.transport.negotiatedProtocol, b"http/1.1")

    async def test_client_that_offers_only_others_decides_for_itself(self) -> None:
        """No protocol is chosen then, and many clients use HTTP/1.1 all the same."""
        write_certificate(self.files, "one.test")
        self.listen(Settings(tls=self.files))

        for offered in ([b"h2"], [b"spdy/1", b"x"]):
            wire = await self.connect_tls(offered)

            await self.assert_served(wire)
            self.assertIsNone(wire.transport.negotiatedProtocol)

    async def test_renewed_certificate_is_used_without_a_restart(self) -> None:
        """Certificates are renewed every few weeks, and sockets stay open for longer."""
        write_certificate(self.files, "one.test")
        listeners = self.listen(Settings(tls=self.files))
        old = await self.connect_tls()
        await self.assert_served(old)

        write_certificate(self.files, "two.test")
        listeners.reload_certificates()

        new = await self.connect_tls()
        await self.assert_served(new)
        names = [
            wire.transport.getPeerCertificate().to_cryptography().subject.rfc4514_string()
            for wire in (old, new)
        ]
        self.assertEqual(names, ["CN=one.test", "CN=two.test"])
        await self.assert_served(old)

    def test_broken_certificate_is_named_at_start_and_ignored_later(self) -> None:
        """An error in renewing must not end a running server."""
        with self.assertRaises(CertificateError):
            Certificate(self.files.certificate, self.files.private_key)
        write_certificate(self.files, "one.test")
        certificate = Certificate(self.files.certificate, self.files.private_key)
        before = certificate.getContext()

        self.files.private_key.write_text("nonsense")
        certificate.reload()

        self.assertIs(certificate.getContext(), before)

    def test_private_key_with_a_passphrase_is_refused(self) -> None:
        """OpenSSL would ask at the terminal, and block the server."""
        write_certificate(self.files, "one.test")
        key = serialization.load_pem_private_key(self.files.private_key.read_bytes(), None)
        self.files.private_key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(b"swordfish"),
            )
        )

        with self.assertRaises(CertificateError):
            Certificate(self.files.certificate, self.files.private_key)


class StopTests(ListenersTestCase):
    async def begin(self, method: str, path: str) -> Wire:
        """A request that waits."""
        wire, count = await self.connect(), len(self.waits.waiting)
        wire.request(method, path)
        await self.until(lambda: len(self.waits.waiting) > count)
        return wire

    async def test_write_under_way_is_finished_and_idle_connections_close(self) -> None:
        """A restart loses no message."""
        listeners = self.listen(Settings())
        idle = await self.connect()
        await self.assert_served(idle)
        busy = await self.begin("POST", "/write")

        stopped = ensureDeferred(listeners.stop(10))
        await idle.closed
        with self.assertRaises(ConnectError):
            await self.connect()
        self.waits.waiting[0].callback({"stored": True})

        response = await busy.response()
        self.assertEqual(response.json, {"stored": True})
        self.assertEqual(response.headers["connection"], "close")
        await stopped

    async def test_long_poll_ends_when_it_is_notified(self) -> None:
        """A client gets an early response, and sends the next request to the next process."""
        listeners = self.listen(Settings())
        wire = await self.begin("GET", "/poll")

        await listeners.stop(10)

        self.assertEqual((await wire.response()).json, {"ended": True})

    async def test_wait_that_does_not_end_is_cancelled(self) -> None:
        """The client gets an error that it can retry, instead of a dead connection."""
        self.patch(listeners_module, "LINGER_SECONDS", 0.05)
        listeners = self.listen(Settings())
        wire = await self.begin("GET", "/wait")

        await listeners.stop(10)

        response = await wire.response()
        self.assertEqual((response.status, response.json["errcode"]), (503, "M_UNKNOWN"))

    async def test_connection_that_does_not_end_in_time_is_aborted(self) -> None:
        """One stuck request, or a silent socket, must not keep the server from stopping."""
        listeners = self.listen(Settings())
        stuck = await self.begin("POST", "/write")
        silent = await self.connect()
        await self.shake(silent, token="alice")

        await listeners.stop(0.05)

        await stuck.closed
        await silent.closed
        self.waits.waiting[0].callback(None)

    async def test_sockets_are_notified_of_the_end(self) -> None:
        """Their owners close them with a code that asks the client to reconnect soon."""
        listeners = self.listen(Settings())
        wire = await self.connect()
        await self.shake(wire, token="alice")
        [echo] = self.server.sockets
        self.shutdown.notify(lambda: echo.end(1012))

        stopped = ensureDeferred(listeners.stop(10))

        await wire.until(lambda data: data == bytes([0x88, 2]) + (1012).to_bytes(2, "big"))
        wire.write(bytes([0x88, 0x82]) + b"\0\0\0\0" + (1012).to_bytes(2, "big"))
        await stopped

"""TLS for outgoing connections: trusted authorities and names, checked before data are sent."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

from OpenSSL import SSL
from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.ssl import DefaultOpenSSLContextFactory
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from homeserver.config.errors import CertificateError
from homeserver.outbound.client_tls import ClientTls, WrongCertificate
from tests.support.certificates import CertificateAuthority


class Listener(Protocol):
    """A server that records the received data."""

    def dataReceived(self, data: bytes) -> None:
        self.factory.heard.append((self.transport.getHandle().get_servername(), data))  # type: ignore[attr-defined,union-attr]
        self.transport.write(b"!")  # type: ignore[union-attr]


class Speaker(Protocol):
    """A client that sends data as soon as it is connected, as an HTTP client does."""

    def __init__(self) -> None:
        self.ended: Deferred[None] = Deferred()

    def connectionMade(self) -> None:
        self.transport.write(b"secret")  # type: ignore[union-attr]

    def dataReceived(self, data: bytes) -> None:
        self.transport.loseConnection()  # type: ignore[union-attr]

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if reason.check(ConnectionDone):
            self.ended.callback(None)
        else:
            self.ended.errback(reason)


class ClientTlsTests(TestCase):
    async def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)
        self.authority = CertificateAuthority(self.folder)
        self.issued = 0
        self.tls = ClientTls(ca_file=self.authority.path)

    async def test_server_with_the_right_certificate_is_accepted(self) -> None:
        """Host names are sent as SNI, addresses not, and both are checked in the certificate."""
        for name, sni in (("one.example", b"one.example"), ("127.0.0.1", None), ("::1", None)):
            heard = await self.speak(self.tls, name, certificate_for=[name])
            self.assertEqual(heard, [(sni, b"secret")])

    async def test_a_wildcard_covers_one_label(self) -> None:
        """As in browsers."""
        heard = await self.speak(self.tls, "a.one.example", certificate_for=["*.one.example"])

        self.assertEqual(len(heard), 1)
        await self.refused(
            self.tls, "a.b.one.example", WrongCertificate, certificate_for=["*.one.example"]
        )

    async def test_another_name_is_refused_before_data_are_sent(self) -> None:
        """An attacker who redirects a name to another machine does not see the request."""
        for name, certified in (
            ("one.example", "two.example"),
            ("one.example", "127.0.0.1"),
            ("127.0.0.1", "127.0.0.2"),
            ("127.0.0.1", "localhost"),
            ("::1", "::2"),
        ):
            await self.refused(self.tls, name, WrongCertificate, certificate_for=[certified])

    async def test_an_unknown_authority_is_refused(self) -> None:
        """Neither an unknown one nor, without a file, one that the system does not trust."""
        (self.folder / "other").mkdir()
        other = CertificateAuthority(self.folder / "other")
        await self.refused(self.tls, "one.example", SSL.Error, other, ["one.example"])
        await self.refused(ClientTls(), "one.example", SSL.Error, certificate_for=["one.example"])

    async def test_connections_to_several_names_do_not_mix(self) -> None:
        """One context serves them all."""
        right = self.speak(self.tls, "one.example", certificate_for=["one.example"])
        wrong = self.refused(
            self.tls, "one.example", WrongCertificate, certificate_for=["two.example"]
        )
        also_right = self.speak(self.tls, "two.example", certificate_for=["two.example"])
        started = [ensureDeferred(one) for one in (right, wrong, also_right)]

        for one in started:
            await one

    async def test_checks_can_be_disabled_by_the_settings(self) -> None:
        """Tests among machines without certificates are possible."""
        careless = ClientTls(verify=False)

        heard = await self.speak(careless, "one.example", certificate_for=["two.example"])

        self.assertEqual(len(heard), 1)

    async def test_a_file_without_certificates_is_an_error_at_the_start(self) -> None:
        """Not an error of each request."""
        for path in (self.folder / "missing", self.folder):
            with self.assertRaises(CertificateError):
                ClientTls(ca_file=path)

    async def refused(
        self,
        tls: ClientTls,
        name: str,
        error: type[Exception],
        authority: CertificateAuthority | None = None,
        certificate_for: list[str] | None = None,
    ) -> None:
        """The TLS handshake fails with this error, and the server receives nothing."""
        factory: Any = Factory.forProtocol(Listener)
        attempt = self.speak(tls, name, authority, certificate_for, factory)
        await self.assertFailure(ensureDeferred(attempt), error)
        self.assertEqual(factory.heard, [])

    async def speak(
        self,
        tls: ClientTls,
        name: str,
        authority: CertificateAuthority | None = None,
        certificate_for: list[str] | None = None,
        factory: Any = None,
    ) -> list[tuple[bytes | None, bytes]]:
        """The data that a server with this certificate receives, and the SNI name."""
        factory = factory or Factory.forProtocol(Listener)
        factory.heard, factory.noisy = [], False
        self.issued += 1
        files = (authority or self.authority).issue(
            *(certificate_for or [name]), file_name=f"server-{self.issued}"
        )
        context = DefaultOpenSSLContextFactory(str(files.private_key), str(files.certificate))
        listening = reactor.listenSSL(  # type: ignore[attr-defined]
            0, factory, context, interface="127.0.0.1"
        )
        port = listening.getHost().port
        endpoint = wrapClientTLS(tls.to(name), HostnameEndpoint(reactor, "127.0.0.1", port))
        try:
            speaker: Any = await endpoint.connect(Factory.forProtocol(Speaker))
            await speaker.ended
        finally:
            await listening.stopListening()
        heard: list[tuple[bytes | None, bytes]] = factory.heard
        return heard

"""A certificate authority for tests, so that TLS on this machine is verified as usual.

Clients that trust it get the file `authority.crt`; it issues pairs of PEM files.
"""

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from treq.client import HTTPClient
from twisted.internet import reactor
from twisted.internet.ssl import Certificate, trustRootFromCertificates
from twisted.web.client import Agent, BrowserLikePolicyForHTTPS, HTTPConnectionPool

DAY = timedelta(days=1)
LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class CertificateFiles:
    """A certificate and its private key, in PEM."""

    certificate: Path
    private_key: Path


class CertificateAuthority:
    """A separate authority, with its files in a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority of the tests")])
        self.path = directory / "authority.crt"
        certificate = self._sign(
            self._name,
            self._key.public_key(),
            x509.BasicConstraints(ca=True, path_length=0),
            until=datetime.now(UTC) + 30 * DAY,
        )
        self.path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(
        self, *names: str, file_name: str = "server", expired: bool = False
    ) -> CertificateFiles:
        """A certificate for host names and IP addresses, those of this machine if none is given."""
        names = names or LOOPBACK
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        certificate = self._sign(
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])]),
            key.public_key(),
            x509.SubjectAlternativeName([_general_name(name) for name in names]),
            until=now - DAY if expired else now + 30 * DAY,
        )
        files = CertificateFiles(
            self._directory / f"{file_name}.crt", self._directory / f"{file_name}.key"
        )
        files.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        files.private_key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return files

    def client_context(self) -> ssl.SSLContext:
        """For blocking clients that trust this authority."""
        return ssl.create_default_context(cafile=self.path)

    def http_client(self, pool: HTTPConnectionPool) -> HTTPClient:
        """For clients on the reactor that trust this authority."""
        trusted = trustRootFromCertificates([Certificate.loadPEM(self.path.read_bytes())])
        return HTTPClient(Agent(reactor, BrowserLikePolicyForHTTPS(trusted), pool=pool))

    def _sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePublicKey,
        extension: x509.ExtensionType,
        *,
        until: datetime,
    ) -> x509.Certificate:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(datetime.now(UTC) - 2 * DAY)
            .not_valid_after(until)
            .add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
            .sign(self._key, hashes.SHA256())
        )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)

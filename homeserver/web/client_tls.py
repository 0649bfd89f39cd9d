"""TLS to others: by whose authority they are believed, and for which name.

One context serves all connections, since reading the authorities takes longer than a handshake.
The name belongs to the connection: it is sent as SNI, unless it is an IP address, and compared with
the certificate before the first byte of a request leaves.

Spec: https://spec.matrix.org/v1.19/server-server-api/#tls
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from OpenSSL import SSL
from service_identity.pyopenssl import verify_hostname, verify_ip_address
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import CertificateOptions
from twisted.python.failure import Failure
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

from homeserver.web.tls import CertificateError


@implementer(IPolicyForHTTPS)
class ClientTls:
    """Makes TLS connections to others.

    Certificates are checked by the authorities in `ca_file` (PEM), or those of the system, unless
    `verify` is false, which is for tests. Raises `CertificateError` where the file cannot be read.
    """

    def __init__(self, *, verify: bool = True, ca_file: Path | None = None) -> None:
        self._context = CertificateOptions().getContext()
        if not verify:
            return
        if ca_file is None:
            self._context.set_default_verify_paths()
        else:
            try:
                self._context.load_verify_locations(str(ca_file))
            except SSL.Error as error:
                raise CertificateError(f"{ca_file} holds no certificates of authorities") from error
        self._context.set_verify(SSL.VERIFY_PEER)
        self._context.set_info_callback(_check_identity)

    def creatorForNetloc(self, hostname: bytes, port: int) -> "TlsTo":
        """For connections to a URL (for Twisted)."""
        return self.to(hostname.decode("ascii").strip("[]"))

    def to(self, name: str) -> "TlsTo":
        """For connections to whoever has a certificate for this host name or IP address."""
        return TlsTo(self._context, name)


@implementer(IOpenSSLClientConnectionCreator)
class TlsTo:
    """Makes connections to one name."""

    def __init__(self, context: SSL.Context, name: str) -> None:
        self._context = context
        self._name = name

    def clientConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        """A connection that is about to begin (for Twisted)."""
        connection = SSL.Connection(self._context, None)
        is_address = isIPAddress(self._name) or isIPv6Address(self._name)
        if not is_address:
            connection.set_tlsext_host_name(self._name.encode("ascii"))
        connection.set_app_data(_Expected(tlsProtocol, self._name, is_address))
        return connection


@dataclass(frozen=True, slots=True)
class _Expected:
    """Who is expected at the other end of a connection."""

    protocol: Any
    name: str
    is_address: bool


def _check_identity(connection: SSL.Connection, where: int, _: int) -> None:
    """Called by OpenSSL in a handshake: once that is done, look at the names of the certificate."""
    if not where & SSL.SSL_CB_HANDSHAKE_DONE:
        return
    expected: _Expected = connection.get_app_data()
    try:
        if expected.is_address:
            verify_ip_address(connection, expected.name)
        else:
            verify_hostname(connection, expected.name)
    except Exception:
        # What is raised here would be lost in OpenSSL, and the connection would go on.
        expected.protocol.failVerification(Failure())

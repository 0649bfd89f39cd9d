"""TLS for outgoing connections: the trusted authorities, and the name that a certificate must have.

One context serves all connections, since reading the authorities takes longer than a TLS handshake.
The name belongs to the connection: it is sent as SNI, unless it is an IP address, and compared with
the certificate in the TLS handshake, before a byte of a request is sent.

Spec: https://spec.matrix.org/v1.19/server-server-api/#tls
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

from OpenSSL import SSL
from OpenSSL.crypto import X509
from service_identity.exceptions import VerificationError
from service_identity.hazmat import DNS_ID, IPAddress_ID, verify_service_identity
from service_identity.pyopenssl import extract_patterns
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import CertificateOptions
from twisted.python.failure import Failure
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

from homeserver.config.errors import CertificateError


class WrongCertificate(Exception):
    """The certificate is valid, but not for the requested name."""


@implementer(IPolicyForHTTPS)
class ClientTls:
    """A factory of outgoing TLS connections.

    Certificates are checked by the authorities in `ca_file` (PEM), or those of the system, unless
    `verify` is false, which is for tests. Raises `CertificateError` if the file cannot be read.
    """

    def __init__(self, *, verify: bool = True, ca_file: Path | None = None) -> None:
        self._verify = verify
        if verify and ca_file is None:
            self._context = _system_context()
            return
        self._context = CertificateOptions().getContext()
        if verify:
            try:
                self._context.load_verify_locations(str(ca_file))
            except SSL.Error as error:
                raise CertificateError(
                    f"{ca_file} contains no certificates of authorities"
                ) from error

    def creatorForNetloc(self, hostname: bytes, port: int) -> "TlsTo":
        """For connections to a URL (for Twisted)."""
        return self.to(hostname.decode("ascii").strip("[]"))

    def to(self, name: str) -> "TlsTo":
        """For connections to a server that has a certificate for this host name or IP address."""
        return TlsTo(self._context, name, verify=self._verify)


@lru_cache(maxsize=1)
def _system_context() -> SSL.Context:
    """The context with the authorities of the system: reading them takes milliseconds."""
    context: SSL.Context = CertificateOptions().getContext()
    context.set_default_verify_paths()
    return context


@implementer(IOpenSSLClientConnectionCreator)
class TlsTo:
    """A factory of connections to one name."""

    def __init__(self, context: SSL.Context, name: str, *, verify: bool) -> None:
        self._context = context
        self._name = name
        self._verify = verify

    def clientConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        """A connection that is about to begin (for Twisted)."""
        connection = SSL.Connection(self._context, None)
        is_address = isIPAddress(self._name) or isIPv6Address(self._name)
        if not is_address:
            connection.set_tlsext_host_name(self._name.encode("ascii"))
        if self._verify:
            wanted = IPAddress_ID(self._name) if is_address else DNS_ID(self._name)
            connection.set_verify(
                SSL.VERIFY_PEER, _CertificateCheck(tlsProtocol, self._name, wanted)
            )
        return connection


class _CertificateCheck:
    """A callback of OpenSSL for each certificate of a chain, that of the peer last."""

    def __init__(self, protocol: Any, name: str, wanted: DNS_ID | IPAddress_ID) -> None:
        self._protocol = protocol
        self._name = name
        self._wanted = wanted

    def __call__(
        self, connection: SSL.Connection, certificate: X509, error: int, depth: int, ok: int
    ) -> bool:
        if not ok or depth > 0:
            return bool(ok)
        protocol, self._protocol = self._protocol, None  # leave no reference cycle behind
        try:
            verify_service_identity(extract_patterns(certificate), [self._wanted], [])
        except VerificationError:
            reason = WrongCertificate(f"the certificate is not one for {self._name}")
        except Exception as failure:
            # An exception from here would be lost in OpenSSL.
            reason = WrongCertificate(f"the certificate cannot be read: {failure}")
        else:
            return True
        if protocol is not None:
            protocol.failVerification(Failure(reason))
        return False

"""The certificate of a listener, which can be replaced while the server runs.

Open connections keep their certificate; new ones get the one that was read last. If the files
cannot be used, the old certificate stays in use. A certificate that the server obtained by itself
comes from memory (`certificates/`).

A client may list the protocols that it supports (ALPN, RFC 7301). HTTP/1.1 is chosen if it is among
them. Otherwise none is chosen and the connection is made all the same: the client knows better than
this server whether it needs one.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLContextFactory
from twisted.internet.ssl import CertificateOptions
from twisted.logger import Logger
from zope.interface import implementer

from homeserver.config.errors import CertificateError

HTTP_1_1 = b"http/1.1"
log = Logger()


@implementer(IOpenSSLContextFactory)
class Certificate:
    """A PEM file with the certificate and its chain, and one with the private key.

    Raises `CertificateError`.
    """

    def __init__(self, certificate: Path, private_key: Path) -> None:
        self._certificate = certificate
        self._private_key = private_key
        self._context = self._load()

    def getContext(self) -> SSL.Context:
        """The context for a new connection (for Twisted)."""
        return self._context

    def reload(self) -> None:
        """Read the files again."""
        try:
            self._context = self._load()
        except CertificateError as error:
            log.error("the old certificate stays in use: {error}", error=error)
        else:
            log.info("read the certificate {path} again", path=str(self._certificate))

    def _load(self) -> SSL.Context:
        context = _new_context()
        try:
            context.use_certificate_chain_file(str(self._certificate))
            # OpenSSL would ask for a passphrase at the terminal, and block the server.
            key: Any = load_pem_private_key(self._private_key.read_bytes(), None)
            context.use_privatekey(key)
            context.check_privatekey()
        except (SSL.Error, OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise CertificateError(
                f"{self._certificate} and {self._private_key} are not a certificate and its key: "
                f"{error}"
            ) from error
        return context


@implementer(IOpenSSLContextFactory)
class ReplaceableCertificate:
    """A certificate with its chain and its key, in memory. Raises `CertificateError`."""

    def __init__(
        self, chain: Sequence[x509.Certificate], private_key: EllipticCurvePrivateKey
    ) -> None:
        self._context = _context_of(chain, private_key)

    def getContext(self) -> SSL.Context:
        """The context for a new connection (for Twisted)."""
        return self._context

    def replace(
        self, chain: Sequence[x509.Certificate], private_key: EllipticCurvePrivateKey
    ) -> None:
        """Use another one for new connections. Raises `CertificateError`; the old one stays."""
        self._context = _context_of(chain, private_key)


def _context_of(
    chain: Sequence[x509.Certificate], private_key: EllipticCurvePrivateKey
) -> SSL.Context:
    context = _new_context()
    try:
        context.use_certificate(chain[0])
        for certificate in chain[1:]:
            context.add_extra_chain_cert(certificate)
        context.use_privatekey(private_key)
        context.check_privatekey()
    except (SSL.Error, ValueError, TypeError) as error:
        raise CertificateError(f"OpenSSL refuses the certificate: {error}") from error
    return context


def _new_context() -> SSL.Context:
    # Twisted's choice of protocol versions and ciphers.
    context = CertificateOptions().getContext()
    # Twisted's own callback reads the protocol of the connection, which exists only on
    # connections that `CertificateOptions` made; here it would raise, and the TLS handshake
    # would fail.
    context.set_alpn_select_callback(_choose_protocol)
    return context


def _choose_protocol(
    _connection: SSL.Connection, offered: Sequence[bytes]
) -> bytes | SSL._NoOverlappingProtocols:
    return HTTP_1_1 if HTTP_1_1 in offered else SSL.NO_OVERLAPPING_PROTOCOLS

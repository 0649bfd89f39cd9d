"""The certificate of a listener, which can be replaced while the server runs.

Connections that are open keep the certificate they began with; new ones get the one that was read
last. Files that cannot be used leave the old certificate in place.

A client may name the protocols that it speaks (ALPN, RFC 7301). HTTP/1.1 is chosen where it is
among them. Where it is not, nothing is chosen and the connection is made all the same: the client
knows better than this server whether it can do without.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
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
        # Twisted's choice of protocol versions and ciphers, with our files.
        context = CertificateOptions().getContext()
        # Twisted's own callback looks for the protocol of the connection, which only connections
        # have that `CertificateOptions` made; for ours it raises, and the handshake fails.
        context.set_alpn_select_callback(_choose_protocol)
        try:
            context.use_certificate_chain_file(str(self._certificate))
            # OpenSSL would ask for a passphrase at the terminal, and the server stand still.
            key: Any = load_pem_private_key(self._private_key.read_bytes(), None)
            context.use_privatekey(key)
            context.check_privatekey()
        except (SSL.Error, OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise CertificateError(
                f"{self._certificate} and {self._private_key} are no certificate and its key: "
                f"{error}"
            ) from error
        return context


def _choose_protocol(
    _connection: SSL.Connection, offered: Sequence[bytes]
) -> bytes | SSL._NoOverlappingProtocols:
    return HTTP_1_1 if HTTP_1_1 in offered else SSL.NO_OVERLAPPING_PROTOCOLS

"""The certificate of a listener, which can be replaced while the server runs.

Connections that are open keep the certificate they began with; new ones get the one that was read
last. Files that cannot be used leave the old certificate in place.
"""

from pathlib import Path

from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLContextFactory
from twisted.internet.ssl import CertificateOptions
from twisted.logger import Logger
from zope.interface import implementer

log = Logger()


class CertificateError(Exception):
    """The certificate or its key cannot be used; the message says which files and why."""


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
        try:
            context.use_certificate_chain_file(str(self._certificate))
            context.use_privatekey_file(str(self._private_key))
            context.check_privatekey()
        except (SSL.Error, OSError) as error:
            raise CertificateError(
                f"{self._certificate} and {self._private_key} are no certificate and its key: "
                f"{error}"
            ) from error
        return context

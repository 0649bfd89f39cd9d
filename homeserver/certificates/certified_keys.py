"""Private keys with the certificates that belong to them, and the requests for these.

Only what fits is accepted: the certificate is for the key that was made for this order, and has all
names that were ordered. A key signs nothing twice: each order has one of its own (ECDSA P-256).

Spec: https://www.rfc-editor.org/rfc/rfc8555#section-7.4
"""

import re
from datetime import UTC, datetime, timedelta

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    generate_private_key,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from homeserver.certificates.renewal_rules import OrderedValidity, Subject
from homeserver.config.errors import CertificateError

SELF_SIGNED_DAYS = 365
MAX_CHAIN = 20  # certificates
_BLOCK = re.compile(r"-----BEGIN ([A-Z ]+)-----[^-]*-----END \1-----\s*")


class CertifiedKey(msgspec.Struct, frozen=True):
    """A private key, and its certificate with the chain; the first one is for the key."""

    subject: Subject
    key: EllipticCurvePrivateKey
    chain: tuple[x509.Certificate, ...]

    @property
    def validity(self) -> OrderedValidity:
        """What it was ordered as, and for how long it is valid."""
        first = self.chain[0]
        begins, ends = first.not_valid_before_utc, first.not_valid_after_utc
        return OrderedValidity(self.subject, begins.timestamp(), ends.timestamp())

    @property
    def issuer(self) -> str:
        """The authority that signed it, for the operator."""
        return _printable(self.chain[0].issuer.rfc4514_string())

    def to_pem(self) -> str:
        """One text with all of it, which other programs can read, too."""
        names = " ".join(sorted(self.subject.names))
        blocks = [pem_of_key(self.key), *(_pem(each) for each in self.chain)]
        return f"Directory: {self.subject.directory}\nNames: {names}\n{''.join(blocks)}"


def certified(subject: Subject, key: EllipticCurvePrivateKey, chain: str) -> CertifiedKey:
    """The certificate of an authority for a key. Raises `CertificateError` if it does not fit."""
    try:
        certificates = tuple(x509.load_pem_x509_certificates(chain.encode()))
        public_key = certificates[0].public_key()
        names = _names(certificates[0])
    except (ValueError, TypeError, x509.DuplicateExtension, x509.ExtensionNotFound) as error:
        raise CertificateError(f"the certificate cannot be read: {error}") from error
    if len(certificates) > MAX_CHAIN:
        raise CertificateError(f"the chain has {len(certificates)} certificates")
    if public_key != key.public_key():
        raise CertificateError("the certificate is for another key")
    if missing := subject.names - names:
        raise CertificateError(f"the certificate is not for {', '.join(sorted(missing))}")
    return CertifiedKey(subject, key, certificates)


def parse_pem(text: str) -> CertifiedKey:
    """The opposite of `CertifiedKey.to_pem`. Raises `CertificateError`."""
    head, _, _ = text.partition("-----BEGIN ")
    fields = dict(line.partition(": ")[::2] for line in head.splitlines())
    blocks = [(found[1], found[0]) for found in _BLOCK.finditer(text)]
    try:
        key = load_pem_private_key(
            next(block for kind, block in blocks if kind == "PRIVATE KEY").encode(), None
        )
        subject = Subject(fields["Directory"], frozenset(fields["Names"].split()))
    except (StopIteration, KeyError, ValueError, TypeError) as error:
        raise CertificateError("the file has not the key and the names") from error
    if not isinstance(key, EllipticCurvePrivateKey):
        raise CertificateError("the file has a key of another kind")
    return certified(subject, key, "".join(block for kind, block in blocks if "CERT" in kind))


def self_signed(subject: Subject, now: float) -> CertifiedKey:
    """A certificate that no client trusts, until there is another one. `now` is wall time."""
    key, name = new_key(), x509.Name([])
    day = datetime.fromtimestamp(now, UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(day - timedelta(days=1))
        .not_valid_after(day + timedelta(days=SELF_SIGNED_DAYS))
        .add_extension(_alternative_names(subject), critical=True)
        .sign(key, hashes.SHA256())
    )
    return CertifiedKey(subject, key, (certificate,))


def signing_request(subject: Subject, key: EllipticCurvePrivateKey) -> str:
    """The request for a certificate (CSR), in PEM."""
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .add_extension(_alternative_names(subject), critical=False)
        .sign(key, hashes.SHA256())
    )
    return request.public_bytes(Encoding.PEM).decode()


def new_key() -> EllipticCurvePrivateKey:
    """A private key, for a certificate or for an account."""
    return generate_private_key(SECP256R1())


def pem_of_key(key: EllipticCurvePrivateKey) -> str:
    """A private key in PEM, without a passphrase."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def _names(certificate: x509.Certificate) -> set[str]:
    """The host names of a certificate, in lower case."""
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return {name.lower() for name in found.value.get_values_for_type(x509.DNSName)}


def _alternative_names(subject: Subject) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.DNSName(name) for name in sorted(subject.names)])


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)

"""An authority in memory: certificates for the tests, of any names and times."""

from datetime import UTC, datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from homeserver.certificates.certified_keys import CertifiedKey, certified, new_key
from homeserver.certificates.renewal_rules import Subject

DAY = 86_400.0
DIRECTORY = "https://ca.example/directory"
NAMES = frozenset({"example.org", "m.example.org"})
SUBJECT = Subject(DIRECTORY, NAMES)


def issue(
    key: EllipticCurvePrivateKey,
    names: frozenset[str] = NAMES,
    begins: float = 0.0,
    ends: float = 90 * DAY,
) -> str:
    """A chain of two certificates for a key, in PEM."""
    issuer_key = new_key()
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Authority")])
    subject = x509.Name([])
    first = _sign(subject, issuer, key, issuer_key, names, begins, ends)
    second = _sign(issuer, issuer, issuer_key, issuer_key, frozenset({"ca"}), begins, ends)
    return (first.public_bytes(Encoding.PEM) + second.public_bytes(Encoding.PEM)).decode()


def obtain(subject: Subject = SUBJECT, begins: float = 0.0, ends: float = 90 * DAY) -> CertifiedKey:
    """What an order for a subject results in."""
    key = new_key()
    return certified(subject, key, issue(key, subject.names, begins, ends))


def _sign(
    subject: x509.Name,
    issuer: x509.Name,
    key: EllipticCurvePrivateKey,
    issuer_key: EllipticCurvePrivateKey,
    names: frozenset[str],
    begins: float,
    ends: float,
) -> x509.Certificate:
    alternative = x509.SubjectAlternativeName([x509.DNSName(name) for name in sorted(names)])
    return (
        x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(datetime.fromtimestamp(begins, UTC))
        .not_valid_after(datetime.fromtimestamp(ends, UTC))
        .add_extension(alternative, critical=False)
        .sign(issuer_key, hashes.SHA256())
    )

"""Certificates: only those that fit are accepted, and they come back from their file."""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from homeserver.certificates.certified_keys import (
    certified,
    new_key,
    parse_pem,
    self_signed,
    signing_request,
)
from homeserver.config.errors import CertificateError
from homeserver.web.tls import ReplaceableCertificate
from tests.certificates.authority import DAY, NAMES, SUBJECT, issue, obtain


def test_a_stored_certificate_comes_back() -> None:
    """A restart serves the same, with its whole chain."""
    before = obtain()

    after = parse_pem(before.to_pem())

    assert (after.subject, after.chain, after.validity) == (
        before.subject,
        before.chain,
        before.validity,
    )
    assert len(after.chain) == 2
    assert after.issuer == "CN=Authority"
    ReplaceableCertificate(after.chain, after.key)


def test_what_an_authority_writes_beside_a_certificate_is_not_stored() -> None:
    """It could pretend to be fields of the file."""
    key = new_key()
    chain = f"Directory: https://evil.example\n{issue(key)}"

    text = certified(SUBJECT, key, chain).to_pem()

    assert "evil" not in text
    assert parse_pem(text).subject == SUBJECT


@pytest.mark.parametrize(
    "chain",
    [
        "",
        "garbage",
        issue(new_key()),
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ],
)
def test_what_does_not_belong_to_the_key_is_refused(chain: str) -> None:
    """The old certificate stays in use."""
    with pytest.raises(CertificateError):
        certified(SUBJECT, new_key(), chain)


def test_certificate_for_fewer_names_is_refused() -> None:
    """Clients of the missing name would refuse it."""
    key = new_key()

    with pytest.raises(CertificateError, match=r"not for m\.example\.org"):
        certified(SUBJECT, key, issue(key, frozenset({"example.org"})))


def test_certificate_for_more_names_is_accepted() -> None:
    """Some authorities add names; the order was for those of the subject all the same."""
    key = new_key()

    found = certified(SUBJECT, key, issue(key, NAMES | {"www.example.org"}))

    assert parse_pem(found.to_pem()).subject == SUBJECT


def test_endless_chain_is_refused() -> None:
    """A client would have to read it with each connection."""
    key = new_key()

    with pytest.raises(CertificateError, match="22 certificates"):
        certified(SUBJECT, key, issue(key) + issue(new_key()) * 10)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "",
        lambda text: text[: len(text) // 3],
        lambda text: text.replace("Names: example.org m.example.org\n", ""),
        lambda text: text.replace("Names: example.org", "Names: example.com"),
        lambda text: text.partition("-----BEGIN CERT")[0],
        lambda text: (
            obtain().to_pem().partition("-----BEGIN CERT")[0]
            + "-----BEGIN CERT"
            + text.partition("-----BEGIN CERT")[2]
        ),
    ],
)
def test_damaged_file_is_refused(change: object) -> None:
    """Half of a file, or a mixed pair, is never served."""
    with pytest.raises(CertificateError):
        parse_pem(change(obtain().to_pem()))  # type: ignore[operator]


def test_key_of_another_kind_is_refused() -> None:
    """It was not stored by the server."""
    key = rsa.generate_private_key(65_537, 2_048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()

    with pytest.raises(CertificateError, match="another kind"):
        parse_pem(f"Directory: https://ca\nNames: a\n{pem}")


def test_request_has_all_names_and_belongs_to_the_key() -> None:
    """The authority needs nothing else."""
    key = new_key()

    request = x509.load_pem_x509_csr(signing_request(SUBJECT, key).encode())

    names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert set(names.get_values_for_type(x509.DNSName)) == NAMES
    assert request.is_signature_valid
    assert request.public_key() == key.public_key()


def test_self_signed_certificate_is_of_use_for_tls() -> None:
    """The server starts before the first order."""
    made = self_signed(SUBJECT, 100 * DAY)

    ReplaceableCertificate(made.chain, made.key)
    assert made.validity.begins < 100 * DAY < made.validity.ends

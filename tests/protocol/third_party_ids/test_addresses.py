"""Canonical addresses: two spellings of one address are one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.protocol.third_party_ids.addresses import (
    InvalidThirdPartyId,
    canonical_address,
    canonical_email,
    canonical_msisdn,
    is_opaque_id,
)


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("bob@Example.com", "bob@example.com"),
        ("Strauß@Example.com", "strauss@example.com"),
        (" Bob.Smith+matrix@example.com ", "bob.smith+matrix@example.com"),
        ("ΣΊΣΥΦΟΣ@example.com", "σίσυφοσ@example.com"),
        ("bob@Bücher.example", "bob@bücher.example"),
        ("root@localhost", "root@localhost"),
    ],
)
def test_an_email_address_is_case_folded(written: str, canonical: str) -> None:
    """One mailbox has one account, however its owner writes the address."""
    assert canonical_email(written) == canonical


@pytest.mark.parametrize(
    "text",
    [
        "",
        "bob",
        "@example.com",
        "bob@",
        "a@b@example.com",
        "Bob <bob@example.com>",
        "mailto:bob@example.com",
        "bob@example.com, eve@example.com",
        "bob@example.com\r\nBcc: eve@example.com",
        "bob\0@example.com",
        "b b@example.com",
        "bob\u2028@example.com",
        '"bob"@example.com',
        ".bob@example.com",
        "b..ob@example.com",
        "bob@example..com",
        "bob@-example.com",
        "bob@[192.0.2.1]",
        "bob@exam_ple.com",
        "b" * 65 + "@example.com",
        "bob@" + "x" * 64 + ".com",
        "bob@" + "example." * 40 + "com",
        "\ud800@example.com",
        "bob@exa\u202emple.com",
    ],
)
def test_what_is_no_email_address_is_refused(text: str) -> None:
    """Only a single address goes into a mail, not a second one."""
    with pytest.raises(InvalidThirdPartyId):
        canonical_email(text)


@given(st.text(max_size=40))
def test_the_canonical_form_is_its_own(text: str) -> None:
    """A stored canonical address is found again."""
    for medium in ("email", "msisdn"):
        for written in (text, f"{text}@example.com"):
            try:
                canonical = canonical_address(medium, written)
            except InvalidThirdPartyId:
                continue
            assert canonical_address(medium, canonical) == canonical


@pytest.mark.parametrize(("written", "canonical"), [("+447700900001", "447700900001")])
def test_a_number_has_no_plus(written: str, canonical: str) -> None:
    """A number is found with and without it."""
    assert canonical_msisdn(written) == canonical
    assert canonical_msisdn(canonical) == canonical


@pytest.mark.parametrize("text", ["", "07700900001", "12345", "1" * 16, "44x7700900001", "٤٤٧٧٠٠"])
def test_what_is_no_international_number_is_refused(text: str) -> None:
    """A national number means something else in each country."""
    with pytest.raises(InvalidThirdPartyId):
        canonical_msisdn(text)


def test_other_media_are_unknown() -> None:
    """Only specified media have a canonical form."""
    with pytest.raises(InvalidThirdPartyId):
        canonical_address("fax", "bob@example.com")


@pytest.mark.parametrize(
    ("text", "is_valid"),
    [
        ("monkeys_are_GREAT", True),
        ("a.=_-9", True),
        ("", False),
        ("a b", False),
        ("a\n", False),
        ("x" * 255, True),
        ("x" * 256, False),
        ("ä", False),
    ],
)
def test_opaque_ids(text: str, *, is_valid: bool) -> None:
    """The specified characters, and no line end smuggled in at the end."""
    assert is_opaque_id(text) is is_valid

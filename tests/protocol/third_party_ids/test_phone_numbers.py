"""Telephone numbers as users write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.protocol.third_party_ids.addresses import InvalidThirdPartyId, canonical_msisdn
from homeserver.protocol.third_party_ids.phone_numbers import CALLING_CODES, parse_phone_number


@pytest.mark.parametrize(
    ("country", "written", "msisdn"),
    [
        ("GB", "07700900001", "447700900001"),
        ("GB", "7700 900001", "447700900001"),
        ("GB", "+44 (0)7700 900001", "447700900001"),
        ("GB", "0033 1 23 45 67 89", "33123456789"),
        ("gb", "(020) 7946-0018", "442079460018"),
        ("FR", "+44 7700 900001", "447700900001"),
        ("US", "(201) 555-0123", "12015550123"),
        ("US", "1-201-555-0123", "12015550123"),
        ("US", "011 44 7700 900001", "447700900001"),
        ("IT", "06 6982 1234", "390669821234"),
        ("ES", "612 34 56 78", "34612345678"),
        ("RU", "8 (912) 345-67-89", "79123456789"),
        ("HU", "06 20 123 4567", "36201234567"),
        ("AU", "0412 345 678", "61412345678"),
        ("JP", "090-1234-5678", "819012345678"),
        ("DE", "01512\u00a03456\u20117890", "49151234567890"),
    ],
)
def test_a_number_is_read_as_it_is_dialled(country: str, written: str, msisdn: str) -> None:
    """Users log in with the number that they know by heart."""
    assert parse_phone_number(country, written) == msisdn


@pytest.mark.parametrize(
    ("country", "written"),
    [
        *(("GB", text) for text in ("", "+", "0", "call me", "1" * 20, "٠٧٧٠٠", "0770090000\0")),
        *((country, "07700900001") for country in ("", "XX", "GBR")),
    ],
)
def test_what_is_no_number_is_refused(country: str, written: str) -> None:
    """A typing error is reported, not stored."""
    with pytest.raises(InvalidThirdPartyId):
        parse_phone_number(country, written)


@given(st.sampled_from(sorted(CALLING_CODES)), st.text(max_size=25))
def test_every_result_is_canonical(country: str, written: str) -> None:
    """Whatever the user wrote, the stored form can be found."""
    try:
        number = parse_phone_number(country, written)
    except InvalidThirdPartyId:
        return
    assert canonical_msisdn(number) == number

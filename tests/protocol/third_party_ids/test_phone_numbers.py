"""Telephone numbers as users write them."""

import subprocess
import sys
from time import perf_counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from phonenumbers import SUPPORTED_REGIONS

from homeserver.protocol.third_party_ids.addresses import InvalidThirdPartyId, canonical_msisdn
from homeserver.protocol.third_party_ids.phone_numbers import parse_phone_number


@pytest.mark.parametrize(
    ("country", "written", "msisdn"),
    [
        ("GB", "07700900001", "447700900001"),
        ("GB", "7700 900001", "447700900001"),
        ("GB", "+44 (0)7700 900001", "447700900001"),
        ("GB", "(+44) 7700 900001", "447700900001"),
        ("GB", "+44 07700 900001", "447700900001"),
        ("GB", "0033 1 23 45 67 89", "33123456789"),
        ("gb", "(020) 7946-0018", "442079460018"),
        ("JE", "07797 712345", "447797712345"),
        ("FR", "+44 7700 900001", "447700900001"),
        ("FR", "01.23.45.67.89", "33123456789"),
        ("US", "(201) 555-0123", "12015550123"),
        ("US", "1-201-555-0123", "12015550123"),
        ("US", "011 44 7700 900001", "447700900001"),
        ("IT", "06 6982 1234", "390669821234"),
        ("IT", "+39 06 6982 1234", "390669821234"),
        ("ES", "612 34 56 78", "34612345678"),
        ("RU", "8 (912) 345-67-89", "79123456789"),
        ("KZ", "8 (771) 000-99-98", "77710009998"),
        ("HU", "06 20 123 4567", "36201234567"),
        ("LT", "(0-612) 34567", "37061234567"),
        ("AU", "0412 345 678", "61412345678"),
        ("AU", "0011 44 7700 900001", "447700900001"),
        ("JP", "090-1234-5678", "819012345678"),
        ("DE", "01512\u00a03456\u20117890", "49151234567890"),
        ("DE", "\t030/123456\n", "4930123456"),
        ("AR", "011 15-2345-6789", "5491123456789"),
        ("BR", "(11) 96123-4567", "5511961234567"),
        ("IN", "081234 56789", "918123456789"),
        ("SG", "8123 4567", "6581234567"),
        ("CI", "01 23 45 67 89", "2250123456789"),
    ],
)
def test_a_number_is_read_as_it_is_dialled(country: str, written: str, msisdn: str) -> None:
    """Users log in with the number that they know by heart."""
    assert parse_phone_number(country, written) == msisdn


@pytest.mark.parametrize(
    "written",
    [
        "",
        "+",
        "0",
        "999",
        "00",
        "call me",
        "07700 CALL ME",
        "07700 900001 ext. 5",
        "07700 900001;ext=5",
        "tel:+447700900001",
        "++447700900001",
        "+447700900001+",
        "+999 7700 900001",
        "0770090000\0",
        "\0+447700900001",
        "٠٧٧٠٠٩٠٠٠٠١",
        "０７７００９００００１",
        "+44 7700 90000\N{SUPERSCRIPT ONE}",
        "+44 7700 90000\ud800",
        "1" * 16,
        "1" * 10_000,
        "+44" + "0" * 10_000,
        " " * 10_000 + "x",
        "(" * 10_000,
        "+" * 10_000,
        "0 " * 5_000 + "\0",
    ],
    ids=lambda written: ascii(written[:24]),
)
def test_what_is_no_number_is_refused(written: str) -> None:
    """A mistyped number is refused, not stored, and cannot keep the server busy."""
    begun = perf_counter()

    with pytest.raises(InvalidThirdPartyId):
        parse_phone_number("GB", written)

    assert perf_counter() - begun < 0.5


@pytest.mark.parametrize("country", ["", "XX", "GBR", "001", "44", "G\0", "ＧＢ", "x" * 10_000])
def test_only_countries_are_dialled_from(country: str) -> None:
    """A number without a country is ambiguous, so even a full one is refused."""
    with pytest.raises(InvalidThirdPartyId, match="Unknown country"):
        parse_phone_number(country, "+447700900001")


@given(st.sampled_from(sorted(SUPPORTED_REGIONS)), st.text(max_size=25))
def test_every_result_is_canonical(country: str, written: str) -> None:
    """A number in any notation is found by what was stored."""
    _check_canonical(country, written)


@given(st.sampled_from(sorted(SUPPORTED_REGIONS)), st.text("+0123456789 ()-", max_size=25))
def test_every_result_of_digits_is_canonical(country: str, written: str) -> None:
    """The same with texts that are numbers more often."""
    _check_canonical(country, written)


def _check_canonical(country: str, written: str) -> None:
    try:
        number = parse_phone_number(country, written)
    except InvalidThirdPartyId:
        return
    assert canonical_msisdn(number) == number


def test_only_what_is_asked_for_is_loaded() -> None:
    """The names of places and of carriers would take tens of megabytes."""
    program = (
        "import sys\n"
        "from homeserver.protocol.third_party_ids.phone_numbers import parse_phone_number\n"
        "parse_phone_number('GB', '07700900001')\n"
        "print(*sorted(name for name in sys.modules if name.startswith('phonenumbers.')))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    loaded = done.stdout.decode().split()

    assert "phonenumbers.data.region_GB" in loaded
    assert "phonenumbers.data.region_DE" not in loaded
    assert not [name for name in loaded if name.endswith((".geocoder", ".carrier", ".timezone"))]

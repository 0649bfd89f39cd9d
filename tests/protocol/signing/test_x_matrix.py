"""The header that signs requests: written for servers of all versions, read in all its forms."""

import contextlib
import string

import pytest
import signedjson.key
import signedjson.sign
from hypothesis import given
from hypothesis import strategies as st

from homeserver.protocol.signing.canonical_json import encode_canonical
from homeserver.protocol.signing.signatures import parse_signing_keys
from homeserver.protocol.signing.x_matrix import (
    Authorization,
    InvalidAuthorization,
    authorize,
    parse_authorization,
    request_object,
)
from tests.protocol.json_values import canonical_objects

SEED = "YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1"
[KEY] = parse_signing_keys(f"ed25519 1 {SEED}\n")
REFERENCE_KEY = signedjson.key.decode_signing_key_base64("ed25519", "1", SEED)
EXPECTED = Authorization("origin.example", "here.example:8448", "ed25519:key1", "ABC/+def")

TOKEN = string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~"
spaces = st.text(" \t", max_size=2)
values = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=12)


@pytest.mark.parametrize(
    "header",
    [
        (
            'X-Matrix origin="origin.example",destination="here.example:8448",'
            'key="ed25519:key1",sig="ABC/+def"'
        ),
        # Tokens need no quotes, and old servers leave them out around colons too.
        (
            "X-Matrix origin=origin.example,destination=here.example:8448,"
            'key=ed25519:key1,sig="ABC/+def"'
        ),
        (
            'x-matrix   KEY="ed25519:key1",Sig="ABC/+def",ORIGIN="origin.example",'
            'Destination="here.example:8448"'
        ),
        (
            'X-Matrix origin = "origin.example" ,\tdestination="here.example:8448" , ,'
            ' key="ed25519:key1",sig="ABC/+def",'
        ),
        (
            'X-Matrix origin="origin\\.example",destination="here.example\\:8448",'
            'key="ed25519:key1",sig="ABC/+def"'
        ),
        (
            'X-Matrix origin="origin.example",destination="here.example:8448",'
            'key="ed25519:key1",sig="ABC/+def",future="a, \\"quoted\\" thing"'
        ),
        # The specification calls it by this name once.
        (
            'X-Matrix origin="origin.example",destination="here.example:8448",'
            'key="ed25519:key1",signature="ABC/+def"'
        ),
    ],
)
def test_all_forms_of_the_header_are_read(header: str) -> None:
    """Servers of all versions and languages send requests."""
    assert parse_authorization(header) == EXPECTED


@pytest.mark.parametrize(
    "header",
    [
        "",
        "X-Matrix",
        "Bearer token",
        'X-Matrix origin="a",key="ed25519:1"',
        'X-Matrix origin="a",key="ed25519:1",sig=',
        'X-Matrix origin="a",key="ed25519:1",sig="b',
        'X-Matrix origin="a" key="ed25519:1" sig="b"',
        'X-Matrix origin="a",origin="a",key="ed25519:1",sig="b"',
        'X-Matrix origin="a",key="ed25519:1",sig="b"x',
        'X-Matrix ="a",key="ed25519:1",sig="b"',
    ],
)
def test_other_headers_are_refused(header: str) -> None:
    """A lenient reading could be one on which two servers differ."""
    with pytest.raises(InvalidAuthorization):
        parse_authorization(header)


def test_old_servers_do_not_name_the_destination() -> None:
    """Their requests are accepted all the same."""
    assert parse_authorization('X-Matrix origin="a",key="b",sig="c"').destination is None


def test_the_header_is_written_as_old_servers_read_it() -> None:
    """One space, lower case, nothing around commas."""
    assert str(EXPECTED) == (
        'X-Matrix origin="origin.example",destination="here.example:8448",'
        'key="ed25519:key1",sig="ABC/+def"'
    )


@given(values, values, values, st.none() | values, st.data())
def test_any_values_survive_any_way_of_writing_them(origin, key, sig, destination, data) -> None:
    """Quoting, order, case and space are the sender's choice."""
    written = {"origin": origin, "key": key, "sig": sig, "destination": destination}
    parameters = [
        f"{_any_case(data, name)}={_written(data, value)}"
        for name, value in written.items()
        if value is not None
    ]
    order = data.draw(st.permutations(parameters))
    header = order[0]
    for parameter in order[1:]:
        header += f"{data.draw(spaces)},{data.draw(spaces)}{parameter}"

    assert parse_authorization(f"X-Matrix {header}") == Authorization(origin, destination, key, sig)


@given(st.text(st.characters(max_codepoint=0xFF), max_size=60))
def test_anything_else_is_refused_with_a_sentence(text) -> None:
    """Garbage in a header is not logged as a defect."""
    with contextlib.suppress(InvalidAuthorization):
        assert isinstance(parse_authorization("X-Matrix " + text), Authorization)


@given(st.none() | canonical_objects)
def test_requests_are_signed_as_the_reference_does(content) -> None:
    """The other server verifies the signature with its own code."""
    body = None if content is None else encode_canonical(content)

    header = authorize("PUT", "/_matrix/a?b=c", "one.example", "two.example", body, KEY)

    signed = request_object("PUT", "/_matrix/a?b=c", "one.example", "two.example", content)
    signatures = {"one.example": {header.key_id: header.signature}}
    verify_key = signedjson.key.get_verify_key(REFERENCE_KEY)
    signedjson.sign.verify_signed_json(
        {**signed, "signatures": signatures}, "one.example", verify_key
    )


def _any_case(data, name: str) -> str:
    return data.draw(st.sampled_from([name, name.upper(), name.title()]))


def _written(data, value: str) -> str:
    """A value with quotes, or without where it needs none."""
    if all(character in TOKEN + ":" for character in value) and data.draw(st.booleans()):
        return value
    escaped = "".join(
        "\\" + character if character in '\\"' or data.draw(st.booleans()) else character
        for character in value
    )
    return f'"{escaped}"'

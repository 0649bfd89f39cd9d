"""The checks on cross-signing keys that a user uploads."""

from contextlib import suppress
from string import ascii_letters, digits
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.protocol.encryption.cross_signing_keys import (
    MAX_KEY_BYTES,
    check_signed_by_master,
    is_public_key,
    parse_cross_signing_key,
    public_key_of,
)
from homeserver.protocol.errors import (
    BadJson,
    InvalidParam,
    InvalidSignature,
    MatrixError,
    TooLarge,
)
from homeserver.protocol.signing.canonical_json import encode_canonical
from homeserver.protocol.signing.signatures import SigningKey
from homeserver.protocol.signing.unpadded_base64 import decode_base64, encode_base64
from tests.protocol.json_values import loose_values

ALICE, BOB = "@alice:example.org", "@bob:example.org"
MASTER, OTHER = (SigningKey.from_seed("x", bytes([n]) * 32) for n in (1, 2))
PUBLIC = MASTER.verify_key


def key(usage: str = "master", **changes: Any) -> dict[str, Any]:
    """A key of Alice, with members that are added or changed."""
    keys = {f"ed25519:{PUBLIC}": PUBLIC}
    return {"user_id": ALICE, "usage": [usage], "keys": keys, **changes}


def test_a_key_is_stored_as_it_was_uploaded() -> None:
    """Clients check signatures over the members that this server does not know, too."""
    uploaded = key(usage="master", x={"y": [1, None]}, signatures={ALICE: {"ed25519:D": "s"}})

    parsed = parse_cross_signing_key(uploaded, ALICE, "master")

    assert msgspec.json.decode(parsed.encoded) == uploaded
    assert parsed.public_key == public_key_of(uploaded) == PUBLIC


def test_a_key_may_have_more_usages() -> None:
    """A list of usages must contain the right one."""
    both = {**key(), "usage": ["x", "self_signing"]}

    assert parse_cross_signing_key(both, ALICE, "self_signing").public_key == PUBLIC


def test_signatures_by_other_users_are_left_out() -> None:
    """What others signed is nobody's business but theirs."""
    uploaded = key(signatures={ALICE: {"ed25519:D": "s"}, BOB: {"ed25519:U": "s"}})

    parsed = parse_cross_signing_key(uploaded, ALICE, "master")

    assert parsed.content["signatures"] == {ALICE: {"ed25519:D": "s"}}


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"user_id": BOB}, InvalidParam),
        ({"user_id": 1}, BadJson),
        ({"usage": []}, InvalidParam),
        ({"usage": ["self_signing"]}, InvalidParam),
        ({"usage": "master"}, BadJson),
        ({"keys": {}}, InvalidParam),
        ({"keys": {f"ed25519:{PUBLIC}": 1}}, BadJson),
        ({"keys": {f"ed25519:{PUBLIC}": OTHER.verify_key}}, InvalidParam),
        ({"keys": {f"curve25519:{PUBLIC}": PUBLIC}}, InvalidParam),
        ({"keys": {PUBLIC: PUBLIC}}, InvalidParam),
        ({"keys": {f"ed25519:{PUBLIC}=": f"{PUBLIC}="}}, InvalidParam),
        ({"keys": {"ed25519:AAAA": "AAAA"}}, InvalidParam),
        ({"keys": {"ed25519:": ""}}, InvalidParam),
        ({"keys": {f"ed25519:{each.verify_key}": each.verify_key for each in (MASTER, OTHER)}},
         InvalidParam),
        ({"signatures": []}, BadJson),
        ({"signatures": {ALICE: {"ed25519:D": 1}}}, BadJson),
        ({"x": 1.5}, BadJson),
        ({"x": 1 << 60}, BadJson),
        ({"x": "\ud800"}, BadJson),
        ({"x": "x" * MAX_KEY_BYTES}, TooLarge),
    ],
)  # fmt: skip
def test_what_no_client_could_use_is_refused(
    changes: dict[str, Any], error: type[MatrixError]
) -> None:
    """The client that uploads it learns of its mistake, not those who read it later."""
    assert parse_cross_signing_key(key(), ALICE, "master")

    with pytest.raises(error):
        parse_cross_signing_key({**key(), **changes}, ALICE, "master")


@pytest.mark.parametrize("name", ["user_id", "usage", "keys"])
def test_all_but_signatures_is_required(name: str) -> None:
    """A master key need not be signed."""
    short = {member: value for member, value in key().items() if member != name}

    with pytest.raises(BadJson):
        parse_cross_signing_key(short, ALICE, "master")


@given(st.dictionaries(st.sampled_from([*key(), "signatures", "x"]), loose_values))
def test_anything_else_is_refused_with_an_error_of_the_specification(value: dict[str, Any]) -> None:
    """No JSON of a hostile client makes the server fail."""
    with suppress(BadJson, InvalidParam, TooLarge):
        parse_cross_signing_key({**key(), **value}, ALICE, "master")


@given(st.binary(max_size=40))
def test_a_public_key_has_one_form(data: bytes) -> None:
    """Otherwise one key could have two names."""
    text = encode_base64(data)

    assert is_public_key(text) == (len(data) == 32)
    assert not is_public_key(text + "=")
    assert not is_public_key(f" {text}")


def test_a_public_key_has_no_second_spelling() -> None:
    """The last character has two bits that belong to no byte: they must be 0."""
    spellings = [PUBLIC[:-1] + last for last in ascii_letters + digits + "+/"]
    same = [each for each in spellings if decode_base64(each) == decode_base64(PUBLIC)]

    assert len(same) == 4
    assert [each for each in same if is_public_key(each)] == [PUBLIC]


def test_other_keys_are_signed_by_the_master_key() -> None:
    """Without that, a thief of an access token could sign devices for the user."""
    unsigned = key(usage="self_signing")
    parsed = parse_cross_signing_key(unsigned, ALICE, "self_signing")

    for signatures in (
        None,
        {ALICE: {}},
        {BOB: _signature(unsigned, MASTER)},
        {ALICE: _signature(unsigned, OTHER)},
        {ALICE: {f"ed25519:{PUBLIC}": _signature(unsigned, OTHER)[f"ed25519:{OTHER.verify_key}"]}},
        {ALICE: {f"ed25519:{PUBLIC}": "no Base64"}},
        {ALICE: _signature({**unsigned, "x": 1}, MASTER)},
    ):
        wrong = parse_cross_signing_key(
            {**unsigned, "signatures": signatures or {}}, ALICE, "self_signing"
        )
        with pytest.raises(InvalidSignature):
            check_signed_by_master(wrong, ALICE, PUBLIC)
    right = {**unsigned, "signatures": {ALICE: _signature(unsigned, MASTER)}}

    check_signed_by_master(parse_cross_signing_key(right, ALICE, "self_signing"), ALICE, PUBLIC)
    with pytest.raises(InvalidSignature):
        check_signed_by_master(parsed, ALICE, PUBLIC)


def _signature(value: dict[str, Any], by: SigningKey) -> dict[str, str]:
    return {f"ed25519:{by.verify_key}": encode_base64(by.sign(encode_canonical(value)))}

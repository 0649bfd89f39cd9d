"""Signatures of keys: what they cover, and which are valid."""

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from homeserver.protocol.encryption.key_signatures import (
    check_is_same,
    check_signature,
    key_name,
    signatures_by,
    signed_part,
)
from homeserver.protocol.errors import InvalidParam, InvalidSignature
from homeserver.protocol.signing.canonical_json import encode_canonical
from homeserver.protocol.signing.signatures import SigningKey
from homeserver.protocol.signing.unpadded_base64 import encode_base64
from tests.protocol.json_values import canonical_objects, loose_values

ALICE = "@alice:example.org"
KEY, OTHER = (SigningKey.from_seed("x", bytes([n]) * 32) for n in (1, 2))
NAME = key_name(KEY.verify_key)


def signature(key: dict[str, Any], by: SigningKey = KEY) -> str:
    return encode_base64(by.sign(encode_canonical(signed_part(key))))


@given(canonical_objects, canonical_objects)
def test_a_signature_covers_all_but_signatures_and_unsigned(
    key: dict[str, Any], more: dict[str, Any]
) -> None:
    """Others may add those two; any other change makes the signature invalid."""
    made = signature(key)

    for same in (key, {**key, "unsigned": more}, {**key, "signatures": more}):
        assert check_signature(same, ALICE, NAME, made, KEY.verify_key) == made
        check_is_same(same, key)
    changed = {**key, **signed_part(more)}
    assume(changed != signed_part(key) and changed != key)
    with pytest.raises(InvalidSignature):
        check_signature(changed, ALICE, NAME, made, KEY.verify_key)
    with pytest.raises(InvalidParam):
        check_is_same(changed, key)


@given(canonical_objects, st.integers(0, 511))
def test_each_bit_of_a_signature_counts(key: dict[str, Any], bit: int) -> None:
    """Nobody can make a second signature of a key."""
    made = bytearray(KEY.sign(encode_canonical(signed_part(key))))
    made[bit // 8] ^= 1 << bit % 8

    with pytest.raises(InvalidSignature):
        check_signature(key, ALICE, NAME, encode_base64(bytes(made)), KEY.verify_key)


def test_a_signature_has_one_form() -> None:
    """Padding without end would fill the database."""
    made = signature({"a": 1})

    assert check_signature({"a": 1}, ALICE, NAME, made + "=" * 5_000, KEY.verify_key) == made


@pytest.mark.parametrize(
    ("text", "public_key"),
    [
        (signature({"a": 1}, OTHER), KEY.verify_key),
        (signature({"a": 2}), KEY.verify_key),
        ("", KEY.verify_key),
        ("AAAA", KEY.verify_key),
        ("\0é", KEY.verify_key),
        (signature({"a": 1}), OTHER.verify_key),
        (signature({"a": 1}), ""),
        (signature({"a": 1}), "no key"),
    ],
)
def test_invalid_signatures(text: str, public_key: str) -> None:
    """By another key, of another object, or nothing at all."""
    with pytest.raises(InvalidSignature):
        check_signature({"a": 1}, ALICE, NAME, text, public_key)


@given(loose_values)
def test_signatures_of_any_shape_can_be_read(value: Any) -> None:
    """Clients send what they like; what is no signature is none."""
    for key in ({"signatures": value}, {"signatures": {ALICE: value}}):
        found = signatures_by(key, ALICE)

        assert all(isinstance(text, str) for text in found.values())


def test_signatures_of_other_algorithms_and_users_are_left_out() -> None:
    """Only Ed25519 keys sign keys."""
    own = {"ed25519:A": "s", "rsa:A": "s", "ed25519:B": 1}
    key = {"signatures": {ALICE: own, "@bob:example.org": {"ed25519:C": "s"}}}

    assert signatures_by(key, ALICE) == {"ed25519:A": "s"}
    assert signatures_by({}, ALICE) == {}

"""Signatures: the appendix's vectors, and agreement with the reference library."""

import base64
import copy
import traceback

import pytest
import signedjson.key
import signedjson.sign
from hypothesis import given
from hypothesis import strategies as st

from homeserver.protocol.redaction import redact
from homeserver.protocol.room_versions import ROOM_VERSIONS
from homeserver.protocol.signing.hashes import content_hash
from homeserver.protocol.signing.signatures import (
    BadSignature,
    InvalidSigningKey,
    SigningKey,
    format_signing_keys,
    parse_signing_keys,
    sign_event,
    sign_json,
    signature_key_ids,
    verify_event_signature,
    verify_signed_json,
)
from tests.protocol.json_values import canonical_objects, versions_and_pdus
from tests.protocol.signing.test_hashes import MINIMAL, REDACTABLE

SEED = "YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1"
[KEY] = parse_signing_keys(f"ed25519 1 {SEED}\n")
REFERENCE_KEY = signedjson.key.decode_signing_key_base64("ed25519", "1", SEED)
V1, V12 = ROOM_VERSIONS["1"], ROOM_VERSIONS["12"]

seeds = st.binary(min_size=32, max_size=32)


def check(value, key=KEY, server_name="domain"):
    verify_signed_json(value, server_name, key.key_id, key.verify_key)


@pytest.mark.parametrize(
    ("value", "signature"),
    [
        (
            {},
            "K8280/U9SSy9IVtjBuVeLr+HpOB4BQFWbg+UZaADMtTdGYI7Geitb76LTrr5QV/7Xg4ahLwYGYZzuHGZKM5ZAQ",
        ),
        (
            {"one": 1, "two": "Two"},
            "KqmLSbO39/Bzb0QIYE82zqLwsA+PDzYIpIRA2sRQ4sL53+sN6/fpNSoqE7BP7vBZhG6kYdD13EIMJpvhJI+6Bw",
        ),
    ],
)
def test_objects_of_the_specification_get_the_signature_written_there(value, signature):
    """The vectors of the appendix: the same bytes on every server."""
    signed = sign_json(value, "domain", KEY)

    assert signed == {**value, "signatures": {"domain": {"ed25519:1": signature}}}


@pytest.mark.parametrize(
    ("pdu", "signature"),
    [
        (
            MINIMAL,
            "KxwGjPSDEtvnFgU00fwFz+l6d2pJM6XBIaMEn81SXPTRl16AqLAYqfIReFGZlHi5KLjAWbOoMszkwsQma+lYAg",
        ),
        (
            REDACTABLE,
            "Wm+VzmOUOz08Ds+0NTWb1d4CZrVsJSikkeRxh6aCcUwu6pNC78FunoD7KNWzqFn241eYHYMGCA5McEiVPdhzBA",
        ),
    ],
)
def test_events_of_the_specification_get_the_signature_written_there(pdu, signature):
    """The vectors of the appendix for events, which were made by the rules of the oldest rooms."""
    hashed = {**pdu, "hashes": {"sha256": content_hash(V1, pdu)}}

    signed = sign_event(V1, hashed, "domain", KEY)

    assert signed == {**hashed, "signatures": {"domain": {"ed25519:1": signature}}}


@given(canonical_objects, seeds)
def test_signatures_are_those_of_the_reference_library(value, seed):
    """Requests to servers that use it are accepted."""
    key = SigningKey.from_seed("k_1", seed)
    reference = signedjson.key.decode_signing_key_base64(
        "ed25519", "k_1", base64.b64encode(seed).decode()
    )
    value = {**value, "signatures": {}}

    expected = signedjson.sign.sign_json(copy.deepcopy(value), "domain", reference)

    assert sign_json(value, "domain", key) == expected
    check(expected, key)


@given(canonical_objects, canonical_objects)
def test_a_signature_is_valid_with_any_unsigned_data(value, unsigned):
    """Servers add the age of an event on its way."""
    signed = sign_json({**value, "signatures": {}}, "domain", KEY)

    check({**signed, "unsigned": unsigned})


@given(canonical_objects, st.text(max_size=5))
def test_a_signature_is_invalid_for_another_object(value, addition):
    """A signature is only valid for its own object."""
    signed = sign_json({**value, "signatures": {}}, "domain", KEY)
    signed["org.example.forged"] = addition

    with pytest.raises(BadSignature):
        check(signed)


def test_signing_leaves_the_object_and_earlier_signatures_alone():
    """An invited user's server signs an event that the inviting server has signed before."""
    first = sign_json({"a": 1}, "first", KEY)
    before = copy.deepcopy(first)

    second = sign_json(first, "second", KEY)

    assert first == before
    check(second, server_name="first")
    check(second, server_name="second")


@pytest.mark.parametrize(
    "signatures",
    [
        None,
        [],
        {"domain": []},
        {"domain": {}},
        {"domain": {"ed25519:1": 1}},
        {"domain": {"ed25519:1": "é"}},
        {"domain": {"ed25519:1": "AAAA"}},
        {"domain": {"ed25519:2": "AAAA"}},
        {"other": {"ed25519:1": "AAAA"}},
    ],
)
def test_malformed_or_missing_signatures_are_bad(signatures):
    """Another server may write anything into the field."""
    with pytest.raises(BadSignature):
        check({"a": 1, "signatures": signatures})


@pytest.mark.parametrize("verify_key", ["", "AAAA", "!", "A" * 43])
def test_a_malformed_key_verifies_nothing(verify_key):
    """With the all-zero key, for instance, anyone could forge signatures."""
    signed = sign_json({"a": 1}, "domain", KEY)

    with pytest.raises(BadSignature):
        verify_signed_json(signed, "domain", "ed25519:1", verify_key)


def test_key_ids_of_unknown_algorithms_are_left_out():
    """A signature that cannot be checked neither helps nor harms."""
    value = {"signatures": {"domain": {"ed25519:1": "x", "rsa:1": "y"}}}

    assert signature_key_ids(value, "domain") == ["ed25519:1"]
    assert signature_key_ids(value, "other") == []


@given(versions_and_pdus())
def test_an_event_signature_survives_redaction(case):
    """A server that joins later sees the redacted event only, and must be able to trust it."""
    version, pdu = case

    signed = sign_event(version, pdu, "domain", KEY)

    for copy_of_it in (signed, redact(version, signed)):
        verify_event_signature(version, copy_of_it, "domain", KEY.key_id, KEY.verify_key)


def test_an_event_with_a_forged_sender_has_a_bad_signature():
    """No server can send events in the name of another server's user."""
    signed = sign_event(V12, MINIMAL, "domain", KEY)

    with pytest.raises(BadSignature):
        verify_event_signature(
            V12, {**signed, "sender": "@b:domain"}, "domain", KEY.key_id, KEY.verify_key
        )


@given(seeds)
def test_the_key_file_is_that_of_the_reference_library(seed):
    """A server that moves here from another implementation keeps its identity."""
    key = SigningKey.from_seed("a_1", seed)
    text = format_signing_keys([key])

    [reference] = signedjson.key.read_signing_keys(text.splitlines())
    [again] = parse_signing_keys(text)

    assert reference.encode() == again.seed == seed
    assert signedjson.key.encode_verify_key_base64(reference.verify_key) == again.verify_key
    assert (again.key_id, again.version) == ("ed25519:a_1", "a_1")


@pytest.mark.parametrize(
    "text",
    [
        "ed25519 1",
        "rsa 1 " + SEED,
        "ed25519 1 " + SEED[:-4],
        "ed25519 1 " + SEED[:-1] + "!",
        "ed25519 a:b " + SEED,
        SEED,
    ],
)
def test_a_broken_key_file_is_refused_without_showing_the_secret(text):
    """The message ends up in logs and bug reports."""
    with pytest.raises(InvalidSigningKey) as refused:
        parse_signing_keys("\n" + text)

    shown = "".join(traceback.format_exception(refused.value, chain=True))
    assert str(refused.value).startswith("line 2:")
    assert SEED[:20] not in shown


def test_a_key_does_not_show_its_secret():
    """Keys are held by objects that are printed in logs."""
    assert "ed25519:1" in repr(KEY)
    assert "nacl" not in repr(KEY)
    assert SEED not in repr(KEY)

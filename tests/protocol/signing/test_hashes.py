"""Content hashes, reference hashes and the event ids that are derived from them."""

import re
from hashlib import sha256

import canonicaljson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from unpaddedbase64 import encode_base64

from homeserver.protocol.redaction import redact
from homeserver.protocol.room_versions import ROOM_VERSIONS
from homeserver.protocol.signing.hashes import (
    check_content_hash,
    content_hash,
    event_id_of,
    reference_hash,
)
from tests.protocol.json_values import canonical_objects, versions, versions_and_pdus

# The two events of the appendix's cryptographic test vectors.
MINIMAL = {
    "room_id": "!x:domain",
    "sender": "@a:domain",
    "origin": "domain",
    "origin_server_ts": 1000000,
    "signatures": {},
    "hashes": {},
    "type": "X",
    "content": {},
    "prev_events": [],
    "auth_events": [],
    "depth": 3,
    "unsigned": {"age_ts": 1000000},
}
REDACTABLE = {
    "content": {"body": "Here is the message content"},
    "event_id": "$0:domain",
    "origin": "domain",
    "origin_server_ts": 1000000,
    "type": "m.room.message",
    "room_id": "!r:domain",
    "sender": "@u:domain",
    "signatures": {},
    "unsigned": {"age_ts": 1000000},
}


@pytest.mark.parametrize(
    ("pdu", "expected"),
    [
        (MINIMAL, "5jM4wQpv6lnBo7CLIghJuHdW+s2CMBJPUOGOC89ncos"),
        (REDACTABLE, "onLKD1bGljeBWQhWZ1kaP9SorVmRQNdN5aM2JYU2n/g"),
    ],
)
def test_examples_of_the_specification_have_the_hash_written_there(pdu, expected):
    """With a different hash other servers would discard the content."""
    assert content_hash(ROOM_VERSIONS["1"], pdu) == expected


@given(versions_and_pdus())
def test_an_event_with_its_own_hash_passes(case):
    """An unmodified event keeps its content, whatever it is."""
    version, pdu = case
    pdu["hashes"] = {"sha256": content_hash(version, pdu)}

    assert check_content_hash(version, pdu)


@given(versions_and_pdus())
def test_changed_content_is_noticed(case):
    """No server on the path can change a user's words."""
    version, pdu = case
    pdu["hashes"] = {"sha256": content_hash(version, pdu)}

    pdu["content"] = {**pdu["content"], "forged": True}

    assert not check_content_hash(version, pdu)


@pytest.mark.parametrize("hashes", [None, [], {}, {"sha256": 1}, {"sha256": "?"}, {"sha256": ""}])
def test_a_malformed_hash_does_not_pass(hashes):
    """Another server may write anything into the field."""
    assert not check_content_hash(ROOM_VERSIONS["10"], {**MINIMAL, "hashes": hashes})


@given(versions_and_pdus())
def test_redaction_does_not_change_the_event_id(case):
    """A redacted event stays in its place in the graph."""
    version, pdu = case

    assert event_id_of(version, redact(version, pdu)) == event_id_of(version, pdu)


@given(versions_and_pdus(), canonical_objects)
def test_unsigned_and_signatures_do_not_change_the_event_id(case, unsigned):
    """Servers may add signatures and say when they received an event."""
    version, pdu = case

    other = {**pdu, "unsigned": unsigned, "signatures": {"other": {"ed25519:x": "y"}}}

    assert event_id_of(version, other) == event_id_of(version, pdu)


@given(versions_and_pdus())
def test_the_reference_hash_is_sha256_of_the_reference_encoding(case):
    """Event ids are compared between servers that use other libraries."""
    version, pdu = case
    redacted = redact(version, pdu)
    del redacted["signatures"]

    expected = sha256(canonicaljson.encode_canonical_json(redacted)).digest()

    assert reference_hash(version, pdu) == expected


@given(versions, st.data())
def test_event_ids_have_the_form_of_their_room_version(version, data):
    """Clients put event ids into URLs, and servers look them up by their text."""
    pdu = {**MINIMAL, "event_id": "$this:domain", "depth": data.draw(st.integers(0, 10**6))}

    event_id = event_id_of(version, pdu)

    if version.identifier in ("1", "2"):
        assert event_id == "$this:domain"
    elif version.identifier == "3":
        assert event_id == "$" + encode_base64(reference_hash(version, pdu))
    else:
        assert event_id == "$" + encode_base64(reference_hash(version, pdu), urlsafe=True)
        assert re.fullmatch(r"\$[A-Za-z0-9_-]{43}", event_id)

"""Hypothesis strategies for JSON values and for events, shared by the tests of this folder."""

from typing import Any

from hypothesis import strategies as st

from homeserver.protocol.room_versions import ROOM_VERSIONS, EventFormat, RoomVersion
from homeserver.protocol.signing.canonical_json import MAX_INTEGER

# Characters whose escaping or order other encoders get wrong, beside the plain ones.
_CHARACTERS = st.one_of(
    st.characters(exclude_categories=["Cs"]),
    st.sampled_from('\x00\x01\x1f\b\t\n\f\r"\\/\x7f\x80\u2028\u2029\ue000\uff21\uffff\U0001f600'),
)
texts = st.text(_CHARACTERS, max_size=8)
integers = st.integers(-MAX_INTEGER, MAX_INTEGER)


def values(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Any JSON value with these for its leaves."""
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
        max_leaves=12,
    )


canonical_values = values(st.none() | st.booleans() | integers | texts)
loose_values = values(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)
canonical_objects = st.dictionaries(texts, canonical_values, max_size=5)
versions = st.sampled_from(list(ROOM_VERSIONS.values()))

# Content keys that some version's redaction knows, so that its branches are met.
_CONTENT_KEYS = st.sampled_from(
    [
        "membership",
        "join_authorised_via_users_server",
        "third_party_invite",
        "creator",
        "room_version",
        "join_rule",
        "allow",
        "users",
        "invite",
        "aliases",
        "history_visibility",
        "redacts",
        "body",
    ]
)
_TYPES = st.sampled_from(
    [
        "m.room.member",
        "m.room.create",
        "m.room.join_rules",
        "m.room.power_levels",
        "m.room.aliases",
        "m.room.history_visibility",
        "m.room.redaction",
        "m.room.message",
    ]
)


@st.composite
def pdus(draw: st.DrawFn, version: RoomVersion) -> dict[str, Any]:
    """A well-formed event of the version, including unknown fields."""
    event_type = draw(_TYPES)
    reference: Any = "$" + "a" * 43
    if version.event_format is EventFormat.V1:
        reference = ["$other:domain", {"sha256": "b" * 43}]
    pdu = {
        **draw(st.dictionaries(st.sampled_from(["origin", "x", "membership"]), texts)),
        "type": event_type,
        "sender": "@a:domain",
        "room_id": "!x:domain",
        "content": draw(st.dictionaries(_CONTENT_KEYS, canonical_values, max_size=4)),
        "depth": draw(st.integers(0, version.max_depth)),
        "origin_server_ts": draw(integers),
        "prev_events": [reference],
        "auth_events": [reference, reference],
        "hashes": {"sha256": "c" * 43},
        "signatures": {"domain": {"ed25519:1": "d" * 86}},
        "unsigned": draw(canonical_objects),
    }
    if draw(st.booleans()):
        pdu["state_key"] = draw(texts)
    if version.event_format is EventFormat.V1:
        pdu["event_id"] = "$this:domain"
    if version.room_id_is_create_hash and event_type == "m.room.create":
        del pdu["room_id"]
    return pdu


@st.composite
def versions_and_pdus(draw: st.DrawFn) -> tuple[RoomVersion, dict[str, Any]]:
    """A room version, and a well-formed event of it."""
    version = draw(versions)
    return version, draw(pdus(version))

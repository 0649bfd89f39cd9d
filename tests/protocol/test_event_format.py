"""The event format: the required shape of a PDU."""

from typing import Any

import pytest
from hypothesis import given

from homeserver.protocol.event_format import InvalidEvent, check_format
from homeserver.protocol.room_versions import ROOM_VERSIONS
from tests.protocol.json_values import versions_and_pdus

ABSENT = object()
V3_TO_12 = list(ROOM_VERSIONS)[2:]


def pdu(version: str, **fields: Any) -> dict[str, Any]:
    """A well-formed event of the version with some fields replaced, or left out if `ABSENT`."""
    reference: Any = "$" + "a" * 43
    if version in ("1", "2"):
        reference = ["$other:domain", {"sha256": "x"}]
        fields.setdefault("event_id", "$this:domain")
    whole = {
        "type": "m.room.message",
        "sender": "@a:domain",
        "room_id": "!x:domain",
        "content": {},
        "depth": 1,
        "origin_server_ts": 1,
        "prev_events": [reference],
        "auth_events": [reference],
        "hashes": {"sha256": "x"},
        "signatures": {"domain": {"ed25519:1": "x"}},
        **fields,
    }
    return {name: value for name, value in whole.items() if value is not ABSENT}


def check(version: str, **fields: Any) -> None:
    check_format(ROOM_VERSIONS[version], pdu(version, **fields))


@given(versions_and_pdus())
def test_well_formed_events_pass_with_unknown_fields(case):
    """Other servers may put unknown fields into an event."""
    version, event = case

    check_format(version, event)


@pytest.mark.parametrize("version", ROOM_VERSIONS)
@pytest.mark.parametrize(
    "field",
    [
        "type",
        "sender",
        "room_id",
        "content",
        "depth",
        "origin_server_ts",
        "prev_events",
        "auth_events",
        "hashes",
        "signatures",
    ],
)
def test_an_event_that_lacks_a_required_field_is_invalid(version, field):
    """Code behind this check relies on the field."""
    check(version)

    with pytest.raises(InvalidEvent):
        check(version, **{field: ABSENT})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("type", 1),
        ("sender", 1),
        ("sender", "alice"),
        ("room_id", 1),
        ("room_id", "@a:domain"),
        ("room_id", None),
        ("state_key", None),
        ("state_key", 1),
        ("content", []),
        ("content", None),
        ("depth", -1),
        ("depth", True),
        ("depth", 1.0),
        ("depth", "1"),
        ("depth", 2**63),
        ("origin_server_ts", 1.5),
        ("origin_server_ts", True),
        ("origin_server_ts", 2**63),
        ("prev_events", {}),
        ("prev_events", [1]),
        ("prev_events", [["$a:b"]]),
        ("prev_events", [["$a:b", "hash"]]),
        ("prev_events", [[1, {"sha256": "x"}]]),
        ("prev_events", ["no sigil"]),
        ("auth_events", "$a:b"),
        ("hashes", []),
        ("hashes", {}),
        ("hashes", {"sha256": 1}),
        ("signatures", []),
        ("signatures", {"domain": "x"}),
        ("signatures", {"domain": {"ed25519:1": 1}}),
    ],
)
@pytest.mark.parametrize("version", ["1", "12"])
def test_a_field_of_the_wrong_type_makes_the_event_invalid(version, field, value):
    """A wrong type would raise an exception somewhere deep in the room's code."""
    with pytest.raises(InvalidEvent):
        check(version, **{field: value})


@pytest.mark.parametrize("version", ROOM_VERSIONS)
@pytest.mark.parametrize(("field", "most"), [("prev_events", 20), ("auth_events", 10)])
def test_the_number_of_references_is_limited(version, field, most):
    """An event with thousands of prev events would make this server fetch them all."""
    [reference] = pdu(version)[field]

    check(version, **{field: [reference] * most})

    with pytest.raises(InvalidEvent):
        check(version, **{field: [reference] * (most + 1)})


@pytest.mark.parametrize("event_id", [ABSENT, 1, "this", "$this"])
@pytest.mark.parametrize("version", ["1", "2"])
def test_the_oldest_versions_need_an_event_id_with_a_domain(version, event_id):
    """There the id is part of the event, and its domain must have signed it."""
    with pytest.raises(InvalidEvent):
        check(version, event_id=event_id)


@pytest.mark.parametrize("version", V3_TO_12)
def test_pairs_of_id_and_hash_are_invalid_since_version_3(version):
    """The room version determines the format; it is not guessed from the event."""
    with pytest.raises(InvalidEvent):
        check(version, prev_events=[["$a:b", {"sha256": "x"}]])


@pytest.mark.parametrize("version", ROOM_VERSIONS)
def test_only_create_events_since_version_12_have_no_room_id(version):
    """Their event determines the room id."""
    fields = {"type": "m.room.create", "state_key": "", "room_id": ABSENT}

    if version == "12":
        check(version, **fields)
    else:
        with pytest.raises(InvalidEvent):
            check(version, **fields)


def test_depth_is_limited_to_what_canonical_json_can_hold_since_version_6():
    """Older rooms count up to 2^63 - 1."""
    check("5", depth=2**63 - 1)
    check("6", depth=2**53 - 1)

    with pytest.raises(InvalidEvent):
        check("6", depth=2**53)


SIGILS = {"type": "", "state_key": "", "sender": "@", "room_id": "!"}


def long_name(field: str, length: int, letter: str) -> str:
    """A name of so many codepoints, valid for the field."""
    sigil = SIGILS[field]
    domain = ":domain" if sigil else ""
    return sigil + letter * (length - len(sigil) - len(domain)) + domain


@pytest.mark.parametrize("version", [*ROOM_VERSIONS][10:])
@pytest.mark.parametrize("field", SIGILS)
def test_short_fields_are_limited_to_255_bytes(version, field):
    """Bytes, not characters: é has two."""
    check(version, **{field: long_name(field, 255, "e")})
    check(version, **{field: long_name(field, 127, "é")})

    for length, letter in ((256, "e"), (140, "é"), (255, "é")):
        with pytest.raises(InvalidEvent):
            check(version, **{field: long_name(field, length, letter)})


@pytest.mark.parametrize("version", [*ROOM_VERSIONS][:10])
@pytest.mark.parametrize("field", SIGILS)
def test_short_fields_are_limited_to_255_codepoints_before_version_11(version, field):
    """Other servers have accepted such events, and later events refer to them."""
    for letter in ("e", "é", "\N{GRINNING FACE}"):
        check(version, **{field: long_name(field, 255, letter)})

        with pytest.raises(InvalidEvent):
            check(version, **{field: long_name(field, 256, letter)})


@pytest.mark.parametrize("version", ["1", "2"])
def test_event_ids_are_limited_to_255_codepoints_where_they_are_chosen(version):
    """Their own ids, and those in their references."""
    good, bad = ("$" + "é" * (length - 8) + ":domain" for length in (255, 256))
    check(version, event_id=good)
    check(version, prev_events=[[good, {}]], auth_events=[[good, {}]])

    for fields in ({"event_id": bad}, {"prev_events": [[bad, {}]]}):
        with pytest.raises(InvalidEvent):
            check(version, **fields)


def test_the_target_of_a_redaction_must_be_text_where_it_is_a_field():
    """Since version 11 it is content, which is checked when the redaction is applied."""
    with pytest.raises(InvalidEvent):
        check("10", type="m.room.redaction", redacts=1)

    check("11", type="m.room.redaction", redacts=1)

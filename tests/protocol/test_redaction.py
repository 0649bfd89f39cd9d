"""Redaction: the keys that each room version keeps."""

import copy

import pytest
from hypothesis import given

from homeserver.protocol.redaction import redact
from homeserver.protocol.room_versions import ROOM_VERSIONS
from tests.protocol.json_values import versions_and_pdus

ALL = list(ROOM_VERSIONS)
LEGACY = ALL[:10]
SINCE_8, SINCE_9, SINCE_11 = ALL[7:], ALL[8:], ALL[10:]

ESSENTIAL = {
    "event_id": "$e:domain",
    "type": "m.room.message",
    "room_id": "!r:domain",
    "sender": "@a:domain",
    "state_key": "",
    "content": {},
    "hashes": {"sha256": "h"},
    "signatures": {"domain": {"ed25519:1": "s"}},
    "depth": 1,
    "prev_events": [],
    "auth_events": [],
    "origin_server_ts": 1,
}


def content_left(version: str, event_type: str, content: dict[str, object]) -> dict[str, object]:
    """The content after redaction, in a room of this version."""
    pdu = {**ESSENTIAL, "type": event_type, "content": content}
    left: dict[str, object] = redact(ROOM_VERSIONS[version], pdu)["content"]
    return left


def versions_that_keep(event_type: str, key: str, value: object = 1) -> list[str]:
    """The room versions in which one key of the content survives."""
    return [
        version
        for version in ALL
        if content_left(version, event_type, {key: value, "other": 1}) == {key: value}
    ]


@given(versions_and_pdus())
def test_redacting_twice_changes_nothing_more(case):
    """A server that receives a redacted event gets the same event as one that redacts it."""
    version, pdu = case

    once = redact(version, pdu)

    assert redact(version, once) == once


@given(versions_and_pdus())
def test_redaction_leaves_its_argument_alone(case):
    """Events are shared between readers, so a change in place would be seen by all."""
    version, pdu = case
    before = copy.deepcopy(pdu)

    redact(version, pdu)["content"]["new"] = 1

    assert pdu == before


@pytest.mark.parametrize("version", ALL)
def test_essential_keys_survive_in_every_version(version):
    """The place of an event in the room's graph must not depend on its redaction."""
    pdu = {**ESSENTIAL, "unsigned": {"age": 1}, "redacts": "$x", "org.example.more": 1}

    assert redact(ROOM_VERSIONS[version], pdu) == ESSENTIAL


@pytest.mark.parametrize("key", ["origin", "membership", "prev_state"])
def test_legacy_keys_survive_before_version_11(key):
    """Old events carry them, and their signatures cover them."""
    kept = [
        version for version in ALL if key in redact(ROOM_VERSIONS[version], {**ESSENTIAL, key: 1})
    ]

    assert kept == LEGACY


@pytest.mark.parametrize("version", ALL)
def test_a_message_loses_its_content(version):
    """The purpose of a redaction."""
    assert content_left(version, "m.room.message", {"body": "secret", "redacts": "$x"}) == {}


@pytest.mark.parametrize(
    ("event_type", "key", "versions"),
    [
        ("m.room.member", "membership", ALL),
        ("m.room.member", "join_authorised_via_users_server", SINCE_9),
        ("m.room.member", "displayname", []),
        ("m.room.create", "creator", LEGACY),
        ("m.room.join_rules", "join_rule", ALL),
        ("m.room.join_rules", "allow", SINCE_8),
        ("m.room.power_levels", "ban", ALL),
        ("m.room.power_levels", "events", ALL),
        ("m.room.power_levels", "events_default", ALL),
        ("m.room.power_levels", "kick", ALL),
        ("m.room.power_levels", "redact", ALL),
        ("m.room.power_levels", "state_default", ALL),
        ("m.room.power_levels", "users", ALL),
        ("m.room.power_levels", "users_default", ALL),
        ("m.room.power_levels", "invite", SINCE_11),
        ("m.room.power_levels", "notifications", []),
        ("m.room.aliases", "aliases", ALL[:5]),
        ("m.room.history_visibility", "history_visibility", ALL),
        ("m.room.redaction", "redacts", SINCE_11),
    ],
)
def test_content_that_authorisation_needs_survives(event_type, key, versions):
    """Each row is a line of the redaction algorithm, with the versions that have it."""
    assert versions_that_keep(event_type, key) == versions


@pytest.mark.parametrize("version", SINCE_11)
def test_the_create_event_keeps_all_its_content(version):
    """`m.federate` and the room type would otherwise be lost with a redaction."""
    content = {"m.federate": False, "room_version": version, "org.example": 1}

    assert content_left(version, "m.room.create", content) == content


@pytest.mark.parametrize("version", SINCE_11)
def test_a_third_party_invite_keeps_what_was_signed(version):
    """The signed part proves the invite to servers that see it later."""
    content = {
        "membership": "invite",
        "third_party_invite": {"signed": {"token": "t"}, "display_name": "a...@example.org"},
    }

    assert content_left(version, "m.room.member", content) == {
        "membership": "invite",
        "third_party_invite": {"signed": {"token": "t"}},
    }


@pytest.mark.parametrize("version", LEGACY)
def test_a_third_party_invite_is_lost_before_version_11(version):
    """Older rooms redact it completely, and changing that would change event ids."""
    content = {"membership": "invite", "third_party_invite": {"signed": {"token": "t"}}}

    assert content_left(version, "m.room.member", content) == {"membership": "invite"}


@pytest.mark.parametrize("value", [None, 1, "text", ["signed"]])
def test_a_malformed_third_party_invite_is_dropped(value):
    """Content of other servers may have any shape, and must not break the redaction."""
    content = {"membership": "invite", "third_party_invite": value}

    assert content_left("11", "m.room.member", content) == {"membership": "invite"}

"""The table of room versions against the changes that each version's page announces."""

import pytest

from homeserver.protocol.room_versions import (
    DEFAULT_ROOM_VERSION,
    ROOM_VERSIONS,
    EventFormat,
    EventIdFormat,
    RoomVersion,
    StateResolution,
    find_room_version,
)

COLUMNS = [name for name in RoomVersion.__slots__ if name != "identifier"]

# The announced changes of each page since the version before it; all else is "unchanged".
CHANGES = {
    "2": {"state_resolution"},
    "3": {
        "event_format",
        "event_id_format",
        "event_id_domain_must_sign",
        "redactions_need_power",
    },
    "4": {"event_id_format"},
    "5": {"validates_signing_key_validity"},
    "6": {
        "max_depth",
        "strict_canonical_json",
        "redaction_keeps_aliases",
        "special_case_aliases_auth",
        "limit_notifications_power_levels",
        "float_power_levels",
    },
    "7": {"knocking"},
    "8": {"restricted_joins", "redaction_keeps_allow"},
    "9": {"redaction_keeps_authorising_user"},
    "10": {"integer_power_levels", "knock_restricted"},
    "11": {
        "limits_ids_by_codepoints",
        "redacts_in_content",
        "redaction_keeps_legacy_keys",
        "redaction_keeps_create_content",
        "redaction_keeps_third_party_signed",
        "redaction_keeps_invite_level",
        "redaction_keeps_redacts",
        "creator_in_content",
    },
    "12": {
        "room_id_is_create_hash",
        "create_in_auth_events",
        "creators_outrank_everyone",
        "state_resolution",
    },
}


def test_all_released_versions_are_there_and_stable():
    """Users of this server can join every room of the released specification."""
    assert list(ROOM_VERSIONS) == [str(number) for number in range(1, 13)]
    assert all(version.stable for version in ROOM_VERSIONS.values())


def test_new_rooms_get_the_recommended_version():
    """The specification recommends version 12 for new rooms."""
    default = find_room_version(DEFAULT_ROOM_VERSION)

    assert default is not None
    assert default.identifier == "12"


def test_unknown_versions_are_not_found():
    """A room of an unknown version must be refused, not guessed at."""
    assert find_room_version("org.example.unknown") is None


@pytest.mark.parametrize("identifier", CHANGES)
def test_a_version_changes_what_its_page_announces_and_nothing_else(identifier):
    """A rule that leaked into another version would split its rooms between servers."""
    older, newer = ROOM_VERSIONS[str(int(identifier) - 1)], ROOM_VERSIONS[identifier]

    changed = {name for name in COLUMNS if getattr(older, name) != getattr(newer, name)}

    assert changed == CHANGES[identifier]


def test_the_first_version_has_the_first_of_everything():
    """Together with the changes this pins every cell of the table."""
    first = ROOM_VERSIONS["1"]

    assert first.event_format is EventFormat.V1
    assert first.event_id_format is EventIdFormat.CHOSEN
    assert first.state_resolution is StateResolution.V1
    assert {name for name in COLUMNS if getattr(first, name) is True} == {
        "stable",
        "limits_ids_by_codepoints",
        "event_id_domain_must_sign",
        "redaction_keeps_legacy_keys",
        "redaction_keeps_aliases",
        "creator_in_content",
        "special_case_aliases_auth",
        "redactions_need_power",
        "float_power_levels",
        "create_in_auth_events",
    }

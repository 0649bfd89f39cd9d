"""The state that a replacement room takes over."""

from typing import Any

from homeserver.protocol.events import Event
from homeserver.protocol.power_levels import PowerLevels
from homeserver.protocol.room_versions import ROOM_VERSIONS
from homeserver.protocol.signing.signatures import SigningKey
from homeserver.rooms.events.event_draft import EventDraft
from homeserver.rooms.events.local_server import LocalServer
from homeserver.rooms.lifecycle.upgrade_state import (
    carried_create_content,
    carried_power_levels,
    may_carry,
    restricted_power_levels,
)

ALICE, BOB, CAROL = "@alice:example.org", "@bob:example.org", "@carol:example.org"


def create(version: str, **content: Any) -> Event:
    """The create event of Alice's room."""
    origin = LocalServer("example.org", SigningKey.from_seed("1", bytes(32)), clock=None)  # type: ignore[arg-type]
    draft = EventDraft("m.room.create", ALICE, content, state_key="", origin_server_ts=1)
    row = ROOM_VERSIONS[version]
    room_id = None if row.room_id_is_create_hash else "!old:example.org"
    return origin.sign_event(row, draft, room_id=room_id)


def carried(old: str, new: str, content: dict[str, Any], *creators: str) -> dict[str, Any]:
    """The power levels of a room of version `new` that replaces one of version `old`."""
    return carried_power_levels(ROOM_VERSIONS[new], create(old), content, creators or (ALICE,))


def test_new_create_event_keeps_the_type_and_federation_of_the_old() -> None:
    """A space stays a space, and an unfederated room stays unfederated."""
    old = create("10", type="m.space", **{"m.federate": False, "org.example.x": 1})

    content = carried_create_content(ROOM_VERSIONS["10"], old, BOB, [CAROL])

    assert content == {
        "room_version": "10",
        "predecessor": {"room_id": "!old:example.org"},
        "type": "m.space",
        "m.federate": False,
        "creator": BOB,
    }


def test_additional_creators_are_named_where_the_version_knows_them() -> None:
    """A version with a single creator gets no additional ones."""
    for version, named in (("11", False), ("12", True)):
        content = carried_create_content(ROOM_VERSIONS[version], create("11"), BOB, [CAROL])

        assert ("additional_creators" in content) is named
        assert "creator" not in content


def test_levels_of_every_old_form_can_be_read_by_the_new_version() -> None:
    """Strings and fractions become the numbers that they represent; other values are left out."""
    content = {
        "ban": " 60 ",
        "kick": 55.9,
        "redact": "many",
        "users": {ALICE: "100", BOB: []},
        "events": [],
        "notifications": {"room": "20"},
    }

    assert carried("5", "11", content) == {
        "ban": 60,
        "kick": 55,
        "users": {ALICE: 100},
        "notifications": {"room": 20},
    }


def test_nothing_changes_between_versions_alike() -> None:
    """An upgrade does not change the power of users."""
    content = {"users": {ALICE: 100, BOB: 50}, "events": {"m.room.name": 7}, "org.example": 3}

    assert carried("10", "11", content) == content
    assert carried("11", "11", {}) == {}
    assert carried("1", "2", {"events": "text"}) == {"events": "text"}


def test_tombstone_is_for_creators_where_they_outrank_all() -> None:
    """Administrators cannot take a room away from its creators."""
    content = {"users": {ALICE: 100, BOB: 100, CAROL: 50}, "events": {"m.room.tombstone": 100}}

    assert carried("11", "12", content, ALICE, BOB)["users"] == {CAROL: 50}
    assert carried("11", "12", content)["events"] == {"m.room.tombstone": 100}
    assert carried("11", "12", {})["events"] == {"m.room.tombstone": 150}
    assert carried("11", "12", {"state_default": 200})["events"] == {"m.room.tombstone": 201}


def test_creators_keep_the_highest_level_in_older_versions() -> None:
    """A creator does not lose the room by going back to an older version."""
    content = {"users": {BOB: 50}, "events": {"m.room.tombstone": 150}}

    assert carried("12", "11", content)["users"] == {ALICE: 150, BOB: 50}
    assert carried("12", "12", content)["users"] == {BOB: 50}


def test_old_room_is_never_opened_by_restricting_it() -> None:
    """Levels only rise."""
    for content, expected in (
        ({}, (50, 50)),
        ({"users_default": 80}, (81, 81)),
        ({"events_default": 90, "invite": 20}, (90, 50)),
    ):
        levels = PowerLevels(create("11"), content)

        restricted = restricted_power_levels(levels, content)

        assert (restricted["events_default"], restricted["invite"]) == expected


def test_content_that_the_new_version_forbids_stays_behind() -> None:
    """One odd event does not keep a room from being upgraded."""
    assert may_carry(ROOM_VERSIONS["11"], {"w": 1})
    assert not may_carry(ROOM_VERSIONS["11"], {"w": 1.5})
    assert may_carry(ROOM_VERSIONS["5"], {"w": 1.5})


def test_level_of_an_invalid_user_id_is_left_out() -> None:
    """An old room may have it, and a new one would be refused for it."""
    content = {"users": {"nobody": 50, "nobody:example.org": 50, BOB: 50}}

    assert carried("6", "11", content)["users"] == {BOB: 50}

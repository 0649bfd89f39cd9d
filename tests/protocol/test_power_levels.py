"""Power levels: defaults, creators, and the notations of old rooms."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.protocol.power_levels import (
    INFINITE,
    PowerLevels,
    creator_of,
    parse_level,
    room_creators,
)
from homeserver.protocol.room_versions import ROOM_VERSIONS
from tests.protocol.authorization.auth_builders import (
    ALICE,
    ALL_VERSIONS,
    BOB,
    CAROL,
    create,
    versions,
)


def levels(version: str, **content: Any) -> PowerLevels:
    return PowerLevels(create(version), content)


@pytest.mark.parametrize("version", versions(creators_outrank_everyone=False))
def test_the_creator_has_100_in_a_room_without_power_levels(version: str) -> None:
    """No other user could set up a room that was only just created."""
    power = PowerLevels(create(version), None)

    assert power.of(ALICE) == 100
    assert power.of(BOB) == 0


@pytest.mark.parametrize("version", versions(creators_outrank_everyone=False))
def test_the_creator_is_like_anyone_once_there_are_power_levels(version: str) -> None:
    """A creator who demoted themselves stays demoted."""
    power = levels(version, users={BOB: 100})

    assert power.of(ALICE) == 0


@pytest.mark.parametrize("version", versions(creators_outrank_everyone=True))
def test_creators_rank_above_every_number(version: str) -> None:
    """No user can take a room of a new version away from its creators."""
    power = PowerLevels(create(version, additional_creators=[CAROL]), {"users": {BOB: 2**53 - 1}})

    assert power.of(ALICE) == power.of(CAROL) == INFINITE
    assert power.of(BOB) < INFINITE


@pytest.mark.parametrize("version", versions(creators_outrank_everyone=False))
def test_additional_creators_mean_nothing_in_old_rooms(version: str) -> None:
    """In an old room version the field grants no power."""
    made = create(version, additional_creators=[CAROL])

    assert room_creators(made) == {ALICE}


@pytest.mark.parametrize("version", versions(creator_in_content=True))
def test_the_creator_of_an_old_room_is_named_by_its_content(version: str) -> None:
    """Until version 10 the content, not the sender, names the creator."""
    assert creator_of(create(version, creator=BOB)) == BOB


@pytest.mark.parametrize("version", versions(creator_in_content=False))
def test_the_creator_of_a_new_room_is_the_sender(version: str) -> None:
    """Since version 11 the content cannot name another user."""
    assert creator_of(create(version, creator=BOB)) == ALICE


@pytest.mark.parametrize("version", ALL_VERSIONS)
def test_what_is_not_given_has_the_default_of_the_specification(version: str) -> None:
    """Clients compute the same defaults to decide which buttons to show."""
    power = levels(version)

    assert (power.ban, power.kick, power.redact, power.invite) == (50, 50, 50, 0)
    assert (power.events_default, power.state_default, power.users_default) == (0, 50, 0)
    assert power.notifications() == 50


@pytest.mark.parametrize("version", ALL_VERSIONS)
def test_what_is_given_replaces_the_default(version: str) -> None:
    """An administrator's choice applies."""
    power = levels(
        version,
        ban=1,
        users_default=2,
        state_default=3,
        events_default=4,
        events={"m.room.name": 5},
        notifications={"room": 6},
    )

    assert (power.ban, power.of(BOB), power.notifications("room")) == (1, 2, 6)
    assert power.for_event("m.room.topic", is_state=True) == 3
    assert power.for_event("m.room.message", is_state=False) == 4
    assert power.for_event("m.room.name", is_state=True) == 5


@pytest.mark.parametrize(
    ("text", "number"),
    [("100", 100), ("000100", 100), ("+100", 100), ("-100", -100), (" 00100 ", 100), (" -5\t", -5)],
)
@pytest.mark.parametrize("version", versions(integer_power_levels=False))
def test_old_rooms_may_write_levels_as_strings(version: str, text: str, number: int) -> None:
    """Rooms of early clients have such levels, and their moderators must keep their power."""
    assert levels(version, users={BOB: text}).of(BOB) == number


@pytest.mark.parametrize(
    "text", ["", " ", "5.0", "1e2", "0x10", "1_000", "+ 5", "--5", "٥", "9" * 5000, True, None, []]
)
@pytest.mark.parametrize("version", ALL_VERSIONS)
def test_what_is_not_a_level_counts_as_not_given(version: str, text: object) -> None:
    """Garbage in one entry must not break a whole room."""
    power = levels(version, ban=text, users={BOB: text}, events={"m.room.name": text})

    assert (power.ban, power.of(BOB), power.for_event("m.room.name", True)) == (50, 0, 50)


@pytest.mark.parametrize("version", versions(float_power_levels=True))
def test_the_oldest_rooms_truncate_floats(version: str) -> None:
    """The example of the specification: 5.114698E4 is 51146, and 50.57 is 50."""
    power = levels(version, ban=5.114698e4, users={BOB: 50.57, CAROL: -1.9})

    assert (power.ban, power.of(BOB), power.of(CAROL)) == (51146, 50, -1)


@pytest.mark.parametrize("version", versions(integer_power_levels=True))
def test_newer_rooms_take_integers_only(version: str) -> None:
    """From version 10 on a string is not a level, even if it has digits."""
    assert levels(version, ban="10").ban == 50


@pytest.mark.parametrize("content", [{"users": []}, {"events": "x"}, {"notifications": 3}])
def test_tables_that_are_not_objects_are_empty(content: dict[str, Any]) -> None:
    """An old event with such a value must not raise an exception."""
    power = levels("1", **content)

    assert power.of(BOB) == 0


@given(st.integers(), st.sampled_from(["{}", "+{}", " {} ", "00{}", "\t{}\n"]))
def test_every_integer_survives_being_written_as_a_string(number: int, form: str) -> None:
    """Whatever notation a client chose, the level is the same."""
    text = form.format(abs(number))

    assert parse_level(ROOM_VERSIONS["1"], text) == abs(number)

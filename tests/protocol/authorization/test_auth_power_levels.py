"""No user grants more power than they have, or takes it from an equal."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.protocol.authorization.auth_rules import AuthState, RuleBroken, check_auth
from homeserver.protocol.authorization.rule_broken import rule_number
from homeserver.protocol.power_levels import DEFAULT_LEVELS, INFINITE, PowerLevels
from tests.protocol.authorization.auth_builders import (
    ALICE,
    ALL_VERSIONS,
    BOB,
    CAROL,
    DAVE,
    power_levels,
    room,
    versions,
)

every_version = pytest.mark.parametrize("version", ALL_VERSIONS)
level_names = pytest.mark.parametrize("name", DEFAULT_LEVELS)
tables = pytest.mark.parametrize("table", ["events", "notifications"])
EVERYONE = (ALICE, BOB, CAROL, DAVE)


def moderated(version: str, **levels: Any) -> AuthState:
    """A room where BOB has 50, CAROL too, and DAVE 60."""
    return room(version, members=EVERYONE, users={BOB: 50, CAROL: 50, DAVE: 60}, levels=levels)


def assert_refused(state: AuthState, version: str, content: dict[str, Any], *, rule: str) -> None:
    """BOB may not set these power levels; `rule` is the number in version 12."""
    event = power_levels(by=BOB, version=version, **content)

    with pytest.raises(RuleBroken) as broken:
        check_auth(event, state)

    assert broken.value.rule == rule_number(event.version, rule)


def users(**changed: Any) -> dict[str, Any]:
    """The users of `moderated`, with changes: `None` removes one."""
    names = {"bob": BOB, "carol": CAROL, "dave": DAVE, "alice": ALICE}
    levels: dict[str, Any] = {"bob": 50, "carol": 50, "dave": 60} | changed
    return {names[name]: level for name, level in levels.items() if level is not None}


@every_version
def test_the_creator_sets_the_first_power_levels(version: str) -> None:
    """There is nothing before it that could be taken from anyone."""
    first = power_levels(by=ALICE, version=version, users={BOB: 1000}, ban=1000)

    check_auth(first, room(version))


@every_version
def test_power_levels_may_be_sent_unchanged(version: str) -> None:
    """Levels above the sender's own are no obstacle as long as they stay."""
    state = moderated(version, ban=100, events={"m.room.name": 100}, notifications={"room": 90})
    same = power_levels(
        by=BOB,
        version=version,
        users=users(),
        ban=100,
        events={"m.room.name": 100},
        notifications={"room": 90},
    )

    check_auth(same, state)


# The shape of the content


@every_version
@pytest.mark.parametrize("value", [None, [], "x", 5, {"bob": 5}, {BOB: "many"}, {BOB: None}])
def test_users_are_user_ids_with_levels(version: str, value: object) -> None:
    """A `users` object that cannot be read has no levels."""
    assert_refused(moderated(version), version, {"users": value}, rule="10.3")


@pytest.mark.parametrize("version", versions(integer_power_levels=True))
@level_names
@pytest.mark.parametrize("value", ["50", 50.0, True, None])
def test_levels_are_integers_from_version_10_on(version: str, name: str, value: object) -> None:
    """Servers that read strings differently would disagree about permissions."""
    assert_refused(moderated(version), version, {name: value, "users": users()}, rule="10.1")


@pytest.mark.parametrize("version", versions(integer_power_levels=True))
@tables
@pytest.mark.parametrize("value", [None, [], 5, {"x": "5"}, {"x": True}, {"x": None}])
def test_tables_hold_integers_from_version_10_on(version: str, table: str, value: object) -> None:
    """The same for the levels of event types and notifications."""
    assert_refused(moderated(version), version, {table: value, "users": users()}, rule="10.2")


@pytest.mark.parametrize("version", versions(integer_power_levels=True))
def test_users_have_integers_from_version_10_on(version: str) -> None:
    """And for users."""
    assert_refused(moderated(version), version, {"users": users(bob="50")}, rule="10.3")


@pytest.mark.parametrize("version", versions(integer_power_levels=False))
def test_old_rooms_accept_levels_as_strings(version: str) -> None:
    """Writing a level in another form does not change it."""
    state = moderated(version, ban=100)
    same = power_levels(by=BOB, version=version, users=users(dave="060"), ban=" +100 ")

    check_auth(same, state)


@pytest.mark.parametrize("version", versions(float_power_levels=True))
@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_levels_that_no_double_holds_are_refused(version: str, value: float) -> None:
    """In any part of the event."""
    state = moderated(version)

    assert_refused(state, version, {"users": users(), "ban": value}, rule="10.3")
    assert_refused(state, version, {"users": users(carol=value)}, rule="10.3")
    assert_refused(state, version, {"users": users(), "events": {"x": value}}, rule="10.3")


@pytest.mark.parametrize("version", versions(creators_outrank_everyone=True))
def test_creators_have_no_number(version: str) -> None:
    """A level for them would have no effect, and clients would show it wrongly."""
    state = room(version, members=EVERYONE, users={}, creation={"additional_creators": [CAROL]})

    for creator in (ALICE, CAROL):
        event = power_levels(by=ALICE, version=version, users={creator: 100})
        event = type(event)(
            event.version, {**event.pdu, "room_id": state.create.room_id}, b"", event.event_id
        )
        with pytest.raises(RuleBroken) as broken:
            check_auth(event, state)
        assert broken.value.rule == "10.4"


# Altering levels


@every_version
@level_names
def test_levels_up_to_ones_own_may_be_altered(version: str, name: str) -> None:
    """Added, changed and removed alike."""
    before = moderated(version, **{name: 50, "state_default": 50})

    for value in ({}, {name: 40}, {name: -1}):
        check_auth(power_levels(by=BOB, version=version, users=users(), **value), before)


@every_version
@level_names
def test_levels_above_ones_own_are_not_touched(version: str, name: str) -> None:
    """A user with 50 cannot lower a required level of 51, or it would protect nothing."""
    state = moderated(version, **{name: 51, "events": {"m.room.power_levels": 50}})
    kept = {"users": users(), "events": {"m.room.power_levels": 50}}

    assert_refused(state, version, {**kept, name: 10}, rule="10.6.1")
    assert_refused(state, version, kept, rule="10.6.1")


@every_version
@level_names
def test_levels_are_not_raised_above_ones_own(version: str, name: str) -> None:
    """No user locks out others, and themselves."""
    assert_refused(moderated(version), version, {"users": users(), name: 51}, rule="10.6.2")


@every_version
def test_event_levels_above_ones_own_are_not_touched(version: str) -> None:
    """Changed or removed."""
    state = moderated(version, events={"m.room.name": 51})

    assert_refused(state, version, {"users": users(), "events": {"m.room.name": 0}}, rule="10.7.1")
    assert_refused(state, version, {"users": users()}, rule="10.7.1")


@every_version
def test_event_levels_are_not_raised_above_ones_own(version: str) -> None:
    """Added or changed."""
    content = {"users": users(), "events": {"m.room.name": 51}}

    assert_refused(moderated(version), version, content, rule="10.8.1")
    assert_refused(moderated(version, events={"m.room.name": 1}), version, content, rule="10.8.1")


@pytest.mark.parametrize("version", versions(limit_notifications_power_levels=True))
def test_notification_levels_are_bounded_from_version_6_on(version: str) -> None:
    """A moderator cannot allow themselves to alert a room of thousands."""
    state = moderated(version, notifications={"room": 51})

    assert_refused(state, version, {"users": users(), "notifications": {"room": 0}}, rule="10.7.1")
    assert_refused(
        moderated(version),
        version,
        {"users": users(), "notifications": {"room": 51}},
        rule="10.8.1",
    )


@pytest.mark.parametrize("version", versions(limit_notifications_power_levels=False))
def test_notification_levels_are_free_before_version_6(version: str) -> None:
    """Old rooms do not have this rule."""
    state = moderated(version, notifications={"room": 51})

    check_auth(
        power_levels(by=BOB, version=version, users=users(), notifications={"room": 0}), state
    )


# Users


@every_version
def test_users_are_given_what_one_has(version: str) -> None:
    """A moderator can make ordinary users moderators."""
    state = moderated(version)

    check_auth(power_levels(by=BOB, version=version, users={**users(), "@e:x": 50}), state)


@every_version
def test_users_are_not_raised_above_oneself(version: str) -> None:
    """Neither another user nor oneself."""
    state = moderated(version)

    assert_refused(state, version, {"users": {**users(), "@e:x": 51}}, rule="10.10.1")
    assert_refused(state, version, {"users": users(bob=51)}, rule="10.10.1")


@every_version
@pytest.mark.parametrize("changed", [{"carol": 10}, {"carol": None}, {"dave": 10}, {"dave": None}])
def test_equals_and_betters_are_not_demoted(version: str, changed: dict[str, Any]) -> None:
    """Two moderators cannot depose each other."""
    assert_refused(moderated(version), version, {"users": users(**changed)}, rule="10.9.1")


@every_version
@pytest.mark.parametrize("level", [10, None])
def test_one_may_demote_oneself(version: str, level: int | None) -> None:
    """A user can give up power."""
    check_auth(power_levels(by=BOB, version=version, users=users(bob=level)), moderated(version))


@pytest.mark.parametrize("version", versions(creators_outrank_everyone=True))
def test_a_creator_demotes_anyone(version: str) -> None:
    """Infinite power is more than any number."""
    state = room(version, members=EVERYONE, users={BOB: 2**53 - 1})

    check_auth(power_levels(by=ALICE, version=version, users={BOB: 0}), state)


@given(
    version=st.sampled_from(ALL_VERSIONS),
    before=st.dictionaries(st.sampled_from([BOB, CAROL, DAVE]), st.integers(0, 100)),
    after=st.dictionaries(st.sampled_from([BOB, CAROL, DAVE]), st.integers(0, 100)),
)
def test_no_change_of_power_levels_makes_anyone_stronger_than_its_sender(
    version: str, before: dict[str, int], after: dict[str, int]
) -> None:
    """Rule 10 as a property: no user rises above the sender, and no equal falls.

    Levels below the default are left out: by the specification, removing such an entry is not a
    grant.
    """
    state = room(version, members=EVERYONE, users=before, levels={"state_default": 0})
    event = power_levels(by=BOB, version=version, users=after, state_default=0)
    own = state.power_levels.of(BOB)

    try:
        check_auth(event, state)
    except RuleBroken:
        return

    changed = PowerLevels(state.create, event.content)
    for user in (BOB, CAROL, DAVE):
        assert changed.of(user) <= max(own, state.power_levels.of(user))
        if user != BOB and user in before and changed.of(user) < before[user]:
            assert before[user] < own < INFINITE

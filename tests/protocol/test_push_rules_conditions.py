"""Conditions of push rules, with the examples of the specification."""

from typing import Any

import pytest

from homeserver.protocol.events import Event
from homeserver.protocol.power_levels import PowerLevels
from homeserver.protocol.push_rules.conditions import (
    EvaluationContext,
    PowerLevelsNeeded,
    compile_condition,
)
from tests.protocol.authorization.auth_builders import ALICE, BOB, create, event


def holds(condition: dict[str, Any], event: Event, *, joined: int = 2, levels: Any = None) -> Any:
    return compile_condition(condition)(EvaluationContext(event, joined, levels))


def topic(value: object) -> Event:
    return event("m.room.topic", by=ALICE, content={"topic": value}, state_key="")


def say(body: object) -> Event:
    return event("m.room.message", by=ALICE, content={"body": body})


def match(key: str, pattern: str) -> dict[str, Any]:
    return {"kind": "event_match", "key": key, "pattern": pattern}


def test_event_match_compares_whole_values() -> None:
    """The example of the specification."""
    condition = match("content.topic", "lunc?*")

    assert holds(condition, topic("Lunch plans"))
    assert holds(condition, topic("LUNCH"))
    for value in (" lunch", "lunc", None):
        assert not holds(condition, topic(value))


def test_event_match_finds_words_in_a_body() -> None:
    """The example of the specification."""
    condition = match("content.body", "ex*ple")

    assert holds(condition, say("An example event."))
    assert holds(condition, say("An exciting triple-whammy"))
    assert not holds(condition, say("An inexpert"))


def test_an_absent_value_or_no_string_matches_nothing() -> None:
    """Even `*` needs a value to match."""
    assert not holds(match("content.nothing", "*"), say("hello"))
    assert not holds(match("content.body.deeper", "*"), say("hello"))
    assert not holds(match("content.body", "*"), say(5))
    assert not holds(match("state_key", "*"), say("hello"))
    assert not holds(match("depth", "*"), say("hello"))
    assert holds(match("state_key", ""), topic("x"))


def test_event_property_is_exact() -> None:
    """The example of the specification: no cast, and no case."""
    condition = {"kind": "event_property_is", "key": r"content.m\.federate", "value": True}
    given = {
        value: holds(condition, event("m.x", by=ALICE, content={"m.federate": value}))
        for value in (True, "true", False)
    }

    assert given == {True: True, "true": False, False: False}
    assert not holds(condition, event("m.x", by=ALICE, content={"m.federate": 1}))
    assert not holds({**condition, "value": None}, event("m.x", by=ALICE))
    assert holds({**condition, "value": None}, event("m.x", by=ALICE, content={"m.federate": None}))


def test_event_property_contains_a_value() -> None:
    """The example of the specification."""
    condition = {
        "kind": "event_property_contains",
        "key": "content.alt_aliases",
        "value": "#myroom:example.com",
    }
    aliases = event(
        "m.room.canonical_alias",
        by=ALICE,
        content={"alt_aliases": ["#somewhere:example.org", "#myroom:example.com", {}]},
        state_key="",
    )

    assert holds(condition, aliases)
    assert not holds({**condition, "value": ":example.com"}, aliases)
    assert not holds({**condition, "key": "content.alias"}, aliases)


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [("2", [2]), ("==2", [2]), ("<2", [1]), (">2", [3]), (">=2", [2, 3]), ("<=2", [1, 2])],
)
def test_members_are_counted(wanted: str, expected: list[int]) -> None:
    """A conversation of two is distinguished from a group."""
    condition = {"kind": "room_member_count", "is": wanted}

    assert [n for n in (1, 2, 3) if holds(condition, say("hello"), joined=n)] == expected


def test_display_name_is_found_in_the_body() -> None:
    """Old clients still use it."""
    test = holds({"kind": "contains_display_name"}, say("Hello, Bob Smith!"))

    assert test(BOB, "bob smith")
    assert not test(BOB, "bob s")
    assert not test(BOB, "")
    assert not test(BOB, None)


def test_notifying_the_room_takes_power() -> None:
    """Not every user can notify a room of a thousand."""
    condition = {"kind": "sender_notification_permission", "key": "room"}
    made = create(version="11", by=BOB)
    allowed = PowerLevels(made, {"users": {ALICE: 50}})
    refused = PowerLevels(made, {"users": {ALICE: 50}, "notifications": {"room": 51}})

    assert holds(condition, say("@room"), levels=allowed)
    assert not holds(condition, say("@room"), levels=refused)
    with pytest.raises(PowerLevelsNeeded):
        holds(condition, say("@room"))


@pytest.mark.parametrize(
    "condition",
    [
        {},
        {"kind": "device"},
        {"kind": []},
        {"kind": "event_match", "key": "type"},
        {"kind": "event_match", "pattern": "*"},
        {"kind": "event_match", "key": 5, "pattern": "*"},
        {"kind": "event_property_is", "key": "type"},
        {"kind": "event_property_is", "key": "type", "value": 1.5},
        {"kind": "event_property_contains", "value": "x"},
        {"kind": "room_member_count"},
        {"kind": "room_member_count", "is": "two"},
        {"kind": "room_member_count", "is": 2},
        {"kind": "sender_notification_permission"},
    ],
    ids=str,
)
def test_an_unknown_condition_never_holds(condition: dict[str, Any]) -> None:
    """A rule with an unknown condition is disabled, and does not notify of everything."""
    assert holds(condition, say("hello")) is False

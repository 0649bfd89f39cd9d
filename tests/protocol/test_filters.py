"""Filters: the clients' choices of events."""

import copy
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.protocol.errors import BadJson
from homeserver.protocol.filters import (
    EventFilter,
    Filter,
    RoomEventFilter,
    only_fields,
    parse_filter,
    parse_room_event_filter,
)
from tests.protocol.authorization.auth_builders import ALICE, BOB

# The example of the specification.
EXAMPLE = {
    "room": {
        "state": {"types": ["m.room.*"], "not_rooms": ["!726s6s6q:example.com"]},
        "timeline": {
            "limit": 10,
            "types": ["m.room.message"],
            "not_rooms": ["!726s6s6q:example.com"],
            "not_senders": ["@spam:example.com"],
        },
        "ephemeral": {"types": ["m.receipt", "m.typing"]},
    },
    "presence": {"types": ["m.presence"], "not_senders": ["@alice:example.com"]},
    "event_format": "client",
    "event_fields": ["type", "content", "sender"],
}
types = st.text("ab.*", max_size=6)


def events(**fields: Any) -> RoomEventFilter:
    return parse_room_event_filter(fields)


def test_the_example_of_the_specification_is_understood() -> None:
    """Members have the names that clients use."""
    parsed = parse_filter(EXAMPLE)

    assert parsed.event_fields == ("type", "content", "sender")
    assert parsed.room.timeline.limit == 10
    assert parsed.room.state.matches("m.room.name", ALICE, {})
    assert not parsed.room.state.matches("m.reaction", ALICE, {})
    assert not parsed.room.timeline.matches_room("!726s6s6q:example.com")
    assert not parsed.presence.matches("m.presence", "@alice:example.com")
    assert parsed.presence.matches("m.presence", "@bob:example.com")


def test_an_empty_filter_matches_everything() -> None:
    """A client that sends no filter gets all events."""
    parsed = parse_filter({})

    assert parsed == Filter()
    assert parsed.room.timeline.is_default
    assert parsed.presence.is_default
    assert parsed.room.timeline.matches("any", None, {})
    assert parsed.room.matches_room("!any:example.com")


@pytest.mark.parametrize(
    "value",
    [
        None,
        [],
        "text",
        {"event_format": "other"},
        {"event_fields": "type"},
        {"event_fields": ["type"] * 101},
        {"room": []},
        {"room": {"include_leave": "yes"}},
        {"room": {"rooms": ["room"]}},
        {"room": {"timeline": "all"}},
        {"room": {"timeline": {"limit": -1}}},
        {"room": {"timeline": {"limit": "10"}}},
        {"room": {"timeline": {"types": "m.room.message"}}},
        {"room": {"timeline": {"types": [1]}}},
        {"room": {"state": {"lazy_load_members": 1}}},
        {"room": {"timeline": {"contains_url": "no"}}},
        {"presence": {"senders": ["alice:example.com"]}},
        {"account_data": {"not_senders": [None]}},
    ],
)
def test_a_malformed_filter_is_refused(value: object) -> None:
    """The client gets an error at once, not missing events."""
    with pytest.raises(BadJson):
        parse_filter(value)


@pytest.mark.parametrize("value", [None, [], {"limit": -1}, {"rooms": ["x"]}])
def test_a_malformed_filter_of_room_events_is_refused(value: object) -> None:
    """The same for the filter of `/messages`."""
    with pytest.raises(BadJson):
        parse_room_event_filter(value)


def test_unknown_members_are_ignored() -> None:
    """A newer client may send more than this server understands."""
    assert parse_filter({"org.example": 1, "room": {"org.example": {}}}) == Filter()


def test_an_empty_list_matches_nothing() -> None:
    """Clients use `"types": []` to disable a part of the sync."""
    assert not events(types=[]).matches("m.room.message", ALICE, {})
    assert not events(senders=[]).matches("m.room.message", ALICE, {})
    assert not events(rooms=[]).matches_room("!room:one.example")
    assert not events(types=[]).is_default


@pytest.mark.parametrize(
    ("pattern", "passes", "stays"),
    [
        ("m.room.*", ["m.room.", "m.room.message"], ["m.room", "xm.room.message"]),
        ("*", ["", "anything"], []),
        ("*.name", ["m.room.name"], ["m.room.names", "name"]),
        ("m.*.*.x", ["m.a.b.x", "m...x"], ["m.a.x", "m.x"]),
        ("a*a", ["aa", "aba"], ["a"]),
        ("m.room.member", ["m.room.member"], ["m_room_member"]),
        ("m.[a]*", ["m.[a]b"], ["m.ab"]),
    ],
)
def test_a_star_stands_for_any_text(pattern: str, passes: list[str], stays: list[str]) -> None:
    """And no other character has a meaning of its own."""
    wanted = events(types=[pattern])

    assert all(wanted.matches(event_type, ALICE, {}) for event_type in passes)
    assert not any(wanted.matches(event_type, ALICE, {}) for event_type in stays)


@given(types, types)
def test_stars_match_as_in_a_regular_expression(pattern: str, event_type: str) -> None:
    """The plain search has the same results as backtracking."""
    expected = re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), event_type)

    assert events(types=[pattern]).matches(event_type, ALICE, {}) == (expected is not None)


def test_many_stars_take_no_time() -> None:
    """A client cannot stop the server with a pattern that makes it backtrack."""
    hostile = events(types=["a*" * 5_000 + "b"])

    assert not hostile.matches("a" * 20_000, ALICE, {})


@given(st.lists(types), st.lists(types), types)
def test_what_is_excluded_stays_excluded(
    wanted: list[str], unwanted: list[str], event_type: str
) -> None:
    """`not_types` always wins, even over the same entry in `types`."""
    both = events(types=wanted, not_types=unwanted)

    if events(types=unwanted).matches(event_type, ALICE, {}):
        assert not both.matches(event_type, ALICE, {})
    else:
        assert both.matches(event_type, ALICE, {}) == events(types=wanted).matches(
            event_type, ALICE, {}
        )


def test_senders_are_chosen_and_excluded() -> None:
    """Exclusion has priority here too."""
    chosen = events(senders=[ALICE, BOB], not_senders=[BOB])

    assert chosen.matches("m.room.message", ALICE, {})
    assert not chosen.matches("m.room.message", BOB, {})
    assert not chosen.matches("m.receipt", None, {})
    assert events(not_senders=[BOB]).matches("m.receipt", None, {})


def test_rooms_are_chosen_and_excluded() -> None:
    """For a part of the sync, or for all of it."""
    fields = {"rooms": ["!a:x", "!b:x"], "not_rooms": ["!b:x"]}

    for wanted in (events(**fields), parse_filter({"room": fields}).room):
        assert [wanted.matches_room(room) for room in ("!a:x", "!b:x", "!c:x")] == [
            True,
            False,
            False,
        ]


@pytest.mark.parametrize("wanted", [True, False])
def test_events_with_a_url_are_distinguished_from_others(wanted: bool) -> None:
    """Clients list the files of a room this way."""
    files = events(contains_url=wanted)

    assert files.matches("m.room.message", ALICE, {"url": "mxc://x/y"}) == wanted
    assert files.matches("m.room.message", ALICE, {}) != wanted
    assert not files.is_default


@pytest.mark.parametrize(("asked", "given_"), [(None, 20), (5, 5), (500, 100)])
def test_the_limit_is_what_was_asked_for_within_bounds(asked: int | None, given_: int) -> None:
    """No client makes the server collect millions of events."""
    assert EventFilter(limit=asked).limit_or(20, 100) == given_


def test_lazy_loading_and_limits_exclude_no_event() -> None:
    """The sync applies them; each single event passes."""
    assert events(limit=1, lazy_load_members=True, include_redundant_members=True).is_default


EVENT = {
    "type": "m.room.message",
    "content": {"body": "hi", "m.relates_to": {"rel_type": "m.thread", "key": 1}, "empty": {}},
    "sender": ALICE,
}


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ([], {}),
        (["sender"], {"sender": ALICE}),
        (["content.body"], {"content": {"body": "hi"}}),
        (
            [r"content.m\.relates_to.rel_type", "content.body"],
            {"content": {"m.relates_to": {"rel_type": "m.thread"}, "body": "hi"}},
        ),
        (["content.body", "content"], {"content": EVENT["content"]}),
        (["content", "content.body"], {"content": EVENT["content"]}),
        (["content.empty", "content.empty.x"], {"content": {"empty": {}}}),
        (["unknown", "content.unknown", "sender.x", "content.body.x"], {}),
    ],
)
def test_only_the_named_fields_are_kept(fields: list[str], kept: dict[str, Any]) -> None:
    """A small client downloads only what it shows."""
    assert only_fields(EVENT, fields) == kept


@given(st.lists(st.sampled_from(["type", "content", "content.body", r"content.m\.relates_to.key"])))
def test_keeping_fields_leaves_the_event_as_it_is(fields: list[str]) -> None:
    """Events are shared by all readers."""
    before = copy.deepcopy(EVENT)

    only_fields(EVENT, fields)

    assert before == EVENT


@pytest.mark.parametrize("name", ["profile_fields", "org.matrix.msc4429.profile_fields"])
def test_fields_of_profiles_are_named(name: str) -> None:
    """The example of MSC4429, under both names."""
    parsed = parse_filter({name: {"ids": ["m.status", "displayname", "avatar_url"]}})

    found = parsed.profile_fields or parsed.unstable_profile_fields
    assert found is not None
    assert found.ids == ("m.status", "displayname", "avatar_url")


@pytest.mark.parametrize("value", [[], {"ids": "m.status"}, {"ids": [1]}, {"ids": ["m"] * 101}])
def test_malformed_fields_of_profiles_are_refused(value: object) -> None:
    """A client sees its mistake."""
    with pytest.raises(BadJson):
        parse_filter({"profile_fields": value})

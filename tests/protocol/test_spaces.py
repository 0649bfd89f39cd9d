"""Spaces: children, their order, and who may see a room."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.protocol.room_versions import ROOM_VERSIONS
from homeserver.protocol.spaces import Child, may_be_shown, parse_child

VIA = {"via": ["example.org"]}


def child(room_id: str, timestamp: int, **content: Any) -> Child:
    """A valid child."""
    parsed = parse_child(room_id, {**VIA, **content}, timestamp)
    assert parsed is not None
    return parsed


def test_order_is_that_of_the_specification() -> None:
    """All clients show the rooms of a space in the order that its moderators chose."""
    children = [
        child("!d:example.org", 1640741000000),
        child("!b:example.org", 1640341000000, order=" "),
        child("!e:example.org", 1640641000000),
        child("!c:example.org", 1640841000000, order="first"),
        child("!a:example.org", 1640141000000, order="aaaa"),
    ]

    ordered = [each.room_id[1] for each in sorted(children, key=lambda each: each.rank)]

    assert ordered == ["b", "a", "c", "e", "d"]


@pytest.mark.parametrize("order", ["", "x" * 51, "é", "a\n", 5, None, ["a"]])
def test_what_is_no_order_counts_as_none(order: Any) -> None:
    """An error of one moderator does not move a room to the top."""
    children = [child("!no:order", 2, order=order), child("!with:order", 3, order="~")]

    ordered = [each.room_id for each in sorted(children, key=lambda each: each.rank)]

    assert ordered == ["!with:order", "!no:order"]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["!a:x", "!b:x", "!c:x"]),
            st.integers(0, 3),
            st.sampled_from(["a", "b", "", None]),
        )
    )
)
def test_equal_orders_go_by_time_and_then_by_room(drawn: list[tuple[str, int, Any]]) -> None:
    """The order is the same for every request."""
    children = [child(room_id, timestamp, order=order) for room_id, timestamp, order in drawn]

    ordered = sorted(children, key=lambda each: each.rank)
    backwards = children[::-1]

    assert ordered == sorted(backwards, key=lambda each: each.rank)
    unordered = [each for each in ordered if each.order is None]
    assert ordered[len(ordered) - len(unordered) :] == unordered
    assert [(each.timestamp, each.room_id) for each in unordered] == sorted(
        (each.timestamp, each.room_id) for each in unordered
    )


@pytest.mark.parametrize(
    ("state_key", "content"),
    [
        ("!room:example.org", {}),
        ("!room:example.org", {"via": []}),
        ("!room:example.org", {"via": "example.org"}),
        ("!room:example.org", {"via": [5]}),
        ("not a room", VIA),
        ("", VIA),
    ],
)
def test_an_event_without_a_valid_child_is_ignored(state_key: str, content: dict[str, Any]) -> None:
    """A room whose `via` was removed is no longer in the space."""
    assert parse_child(state_key, content, 0) is None


def test_invalid_server_names_are_left_out() -> None:
    """Requests to them would fail."""
    parsed = child("!room:example.org", 0, via=["a b", "example.org", "", *["x.org"] * 50])

    assert parsed.via[0] == "example.org"
    assert len(parsed.via) == 10


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ({"join_rule": "public"}, True),
        ({"join_rule": "invite"}, False),
        ({"join_rule": "private"}, False),
        ({"join_rule": None}, False),
        ({"join_rule": "knock"}, True),
        ({"join_rule": "knock_restricted"}, True),
        ({"join_rule": "restricted"}, False),
        ({"join_rule": "restricted", "is_allowed": True}, True),
        ({"join_rule": "invite", "is_allowed": True}, False),
        ({"join_rule": "invite", "world_readable": True}, True),
        ({"join_rule": "invite", "memberships": ["join"]}, True),
        ({"join_rule": "invite", "memberships": ["invite"]}, True),
        ({"join_rule": "invite", "memberships": ["leave"]}, False),
        ({"join_rule": "public", "memberships": ["ban"]}, False),
        ({"join_rule": "knock", "memberships": ["ban"]}, False),
        ({"join_rule": "invite", "memberships": ["ban"], "world_readable": True}, True),
    ],
)
def test_users_who_may_join_see_the_room(arguments: dict[str, Any], shown: bool) -> None:
    """A private room does not show in a space to users who cannot join it."""
    defaults: dict[str, Any] = {"world_readable": False, "memberships": (), "is_allowed": False}

    assert may_be_shown(**{**defaults, **arguments}) is shown


@pytest.mark.parametrize(
    ("join_rule", "first"), [("knock", 7), ("restricted", 8), ("knock_restricted", 10)]
)
def test_a_rule_that_the_version_does_not_have_admits_no_user(join_rule: str, first: int) -> None:
    """In older rooms such a rule means the same as `invite`."""
    for number in range(1, 13):
        shown = may_be_shown(
            join_rule=join_rule,
            world_readable=False,
            memberships=(),
            is_allowed=True,
            version=ROOM_VERSIONS[str(number)],
        )
        assert shown is (number >= first)

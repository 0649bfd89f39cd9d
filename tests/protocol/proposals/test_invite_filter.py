"""Invite filtering, with the examples of the proposal."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.protocol.proposals.invite_filter import MAX_WILD, InviteAction, InviteFilter
from tests.protocol.json_values import loose_values

LISTS = ("allowed", "ignored", "blocked")
ALLOW, IGNORE, BLOCK = InviteAction
GOOD, BAD, OTHER = "@john:goodguys.org", "@eve:badguys.org", "@carol:example.org"
FIELDS = st.sampled_from(
    [
        "enabled",
        "default_action",
        *(f"{list_}_{kind}" for list_ in LISTS for kind in ("users", "servers")),
    ]
)


def action(inviter: str, *contents: Any) -> InviteAction:
    """What becomes of an invite."""
    return InviteFilter(contents).action(inviter)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({}, (ALLOW, ALLOW, ALLOW)),
        ({"blocked_servers": ["*"]}, (BLOCK, BLOCK, BLOCK)),
        (
            {"allowed_servers": ["goodguys.org"], "blocked_servers": ["*"]},
            (ALLOW, BLOCK, BLOCK),
        ),
        ({"blocked_servers": ["badguys.org"]}, (ALLOW, BLOCK, ALLOW)),
        (
            {
                "blocked_users": [GOOD],
                "allowed_servers": ["goodguys.org"],
                "blocked_servers": ["*"],
            },
            (BLOCK, BLOCK, BLOCK),
        ),
        ({"allowed_users": [BAD], "blocked_servers": ["badguys.org"]}, (ALLOW, ALLOW, ALLOW)),
        (
            {
                "allowed_servers": ["goodguys.org"],
                "ignored_servers": ["badguys.org"],
                "blocked_servers": ["*"],
            },
            (ALLOW, IGNORE, BLOCK),
        ),
        ({"ignored_users": ["@e?e:*"], "blocked_users": ["*"]}, (BLOCK, IGNORE, BLOCK)),
        ({"enabled": False, "blocked_servers": ["*"]}, (ALLOW, ALLOW, ALLOW)),
        ({"default_action": "block", "allowed_users": ["*"]}, (BLOCK, BLOCK, BLOCK)),
    ],
)
def test_the_first_list_that_matches_decides(
    content: dict[str, Any], expected: tuple[InviteAction, ...]
) -> None:
    """The order is that of the proposal; `default_action`, which is specified, stands above."""
    assert tuple(action(inviter, content) for inviter in (GOOD, BAD, OTHER)) == expected


def test_ports_and_case_of_servers_do_not_count() -> None:
    """A server cannot come in by another port."""
    content = {"blocked_servers": ["BadGuys.org", "2001:db8::1"]}

    assert action("@eve:badguys.org:8448", content) is BLOCK
    assert action("@eve:[2001:DB8::1]:8448", content) is BLOCK
    assert action("@eve:badguys.org.example", content) is ALLOW


def test_ignored_users_are_ignored_before_a_filter_blocks_them() -> None:
    """A blocked user is notified of it; an ignored one is not."""
    given_filter = InviteFilter([{"blocked_users": [BAD]}])

    assert given_filter.action(BAD, frozenset([BAD])) is IGNORE
    assert InviteFilter([{"default_action": "block"}]).action(BAD, frozenset([BAD])) is BLOCK


def test_the_strictest_of_several_counts() -> None:
    """One client of the user knows another name of the type than another client."""
    assert action(BAD, {"allowed_users": [BAD]}, {"ignored_users": [BAD]}) is IGNORE
    assert action(BAD, {"ignored_users": [BAD]}, {"blocked_users": [BAD]}) is BLOCK


@pytest.mark.parametrize(
    "content",
    [
        {"blocked_users": BAD},
        {"blocked_users": ["*"], "allowed_servers": [1]},
        {"blocked_users": ["*"], "allowed_servers": None},
        {"blocked_users": ["*"], "enabled": "yes"},
        {"blocked_users": ["*", f"{'*?' * MAX_WILD}"]},
    ],
)
def test_an_invalid_filter_filters_nothing(content: dict[str, Any]) -> None:
    """By the proposal the entire event is invalid then."""
    assert action(BAD, content) is ALLOW


@given(st.dictionaries(FIELDS, loose_values | st.lists(st.text()), max_size=8))
def test_any_content_can_be_applied(content: Any) -> None:
    """Clients can set anything as account data."""
    assert isinstance(action(BAD, content), InviteAction)

"""How long the messages of a room are kept."""

from typing import Any

import pytest

from homeserver.protocol.retention.lifetimes import LifetimeLimits

ANY = LifetimeLimits()
STRICT = LifetimeLimits(default=50, least=10, most=100)


@pytest.mark.parametrize(
    ("limits", "content", "lifetime"),
    [
        (ANY, None, None),
        (ANY, {"max_lifetime": 5}, 5),
        (ANY, {"max_lifetime": 5, "min_lifetime": 5}, 5),
        (ANY, {"min_lifetime": 5}, None),
        (STRICT, None, 50),
        (STRICT, {}, 50),
        (STRICT, {"max_lifetime": 5}, 10),
        (STRICT, {"max_lifetime": 70}, 70),
        (STRICT, {"max_lifetime": 10**15}, 100),
    ],
)
def test_the_limits_of_the_server_bound_the_policy_of_the_room(
    limits: LifetimeLimits, content: dict[str, Any] | None, lifetime: int | None
) -> None:
    """An operator decides how soon a room may delete, and how long it may keep."""
    assert limits.lifetime(content) == lifetime


@pytest.mark.parametrize(
    "content",
    [
        {"max_lifetime": "5"},
        {"max_lifetime": True},
        {"max_lifetime": -1},
        {"max_lifetime": 5, "min_lifetime": 6},
        {"max_lifetime": 5, "min_lifetime": "4"},
        {"max_lifetime": [5]},
    ],
)
def test_a_policy_that_makes_no_sense_counts_as_none(content: dict[str, Any]) -> None:
    """A mistake of a room's administrator deletes nothing."""
    assert ANY.lifetime(content) is None
    assert STRICT.lifetime(content) == 50

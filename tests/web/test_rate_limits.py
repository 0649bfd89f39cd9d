"""Rate limits: bursts, refills, and memory that stays bounded."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from homeserver.accounts.sessions.requester import Requester
from homeserver.protocol.errors import LimitExceeded
from homeserver.web.rate_limits import RateLimits

ALICE = Requester("@alice:test", "PHONE")


@dataclass(frozen=True)
class Rate:
    per_second: float
    burst: int


def limits(**rates: Rate) -> tuple[Clock, RateLimits]:
    clock = Clock()
    clock.advance(1_700_000_000)
    return clock, RateLimits(clock, rates)


def test_burst_is_allowed_and_then_the_rate() -> None:
    """A user may paste five messages, but not flood."""
    clock, limited = limits(message=Rate(per_second=2, burst=5))

    for _ in range(5):
        limited.check("message", ALICE)
    with pytest.raises(LimitExceeded) as refused:
        limited.check("message", ALICE)

    assert refused.value.retry_after_ms == 500
    clock.advance(0.5)
    limited.check("message", ALICE)


@given(
    per_second=st.floats(0.01, 1000),
    burst=st.integers(1, 100),
    pauses=st.lists(st.floats(0, 10), max_size=50),
)
def test_retry_after_the_announced_time_always_succeeds(
    per_second: float, burst: int, pauses: list[float]
) -> None:
    """`Retry-After` is a promise."""
    clock, limited = limits(message=Rate(per_second, burst))
    for pause in pauses:
        clock.advance(pause)
        try:
            limited.check("message", ALICE)
        except LimitExceeded as refused:
            clock.advance(refused.retry_after_ms / 1000)
            limited.check("message", ALICE)


@given(per_second=st.floats(0.01, 1000), burst=st.integers(1, 100), wait=st.floats(0, 100))
def test_no_client_gets_more_than_burst_and_rate(
    per_second: float, burst: int, wait: float
) -> None:
    """The limit holds for a client that tries all the time."""
    clock, limited = limits(message=Rate(per_second, burst))
    done = 0
    for _ in range(3):
        for _ in range(burst + 1):
            try:
                limited.check("message", ALICE)
                done += 1
            except LimitExceeded:
                break
        clock.advance(wait)

    assert done <= burst + 2 * wait * per_second + 1


def test_users_addresses_and_actions_do_not_share() -> None:
    """One user's flood is not another's."""
    _, limited = limits(login=Rate(1, 1), join=Rate(1, 1))

    limited.check("login", "192.0.2.1")
    limited.check("login", "192.0.2.2")
    limited.check("login", ALICE)
    limited.check("join", ALICE)

    with pytest.raises(LimitExceeded):
        limited.check("login", "192.0.2.1")


def test_action_without_a_rate_is_free() -> None:
    """With `rate_limits.enabled: false` there are no rates at all."""
    _, limited = limits()

    for _ in range(1000):
        limited.check("message", ALICE)

    assert len(limited) == 0


def test_override_replaces_the_rates_of_one_user() -> None:
    """Bridges send for thousands of users."""
    _, limited = limits(message=Rate(1, 1))

    limited.override(ALICE.user_id, None)
    for _ in range(100):
        limited.check("message", ALICE)
    limited.override(ALICE.user_id, Rate(1, 2))
    limited.check("message", ALICE)
    limited.check("message", ALICE)
    with pytest.raises(LimitExceeded):
        limited.check("message", ALICE)
    limited.reset(ALICE.user_id)
    with pytest.raises(LimitExceeded):
        limited.check("message", ALICE)


def test_full_buckets_are_removed() -> None:
    """Memory grows with the number of recently active users, not of all users."""
    clock, limited = limits(login=Rate(1, 1))
    for number in range(5000):
        limited.check("login", f"address {number}")
        clock.advance(0.01)

    assert len(limited) <= 1024


def test_flood_from_new_addresses_is_bounded() -> None:
    """A botnet must not fill the memory with buckets."""
    clock = Clock()
    limited = RateLimits(clock, {"login": Rate(0.001, 1)}, max_buckets=2000)

    for number in range(10_000):
        limited.check("login", f"address {number}")

    assert len(limited) <= 2000
    with pytest.raises(LimitExceeded):
        limited.check("login", "address 9999")


@given(per_second=st.floats(0.01, 1000), burst=st.integers(1, 100), number=st.integers(1, 200))
def test_many_are_counted_together_or_not_at_all(
    per_second: float, burst: int, number: int
) -> None:
    """What is sent again as a whole would never get through if a part of it were counted."""
    clock, limited = limits(message=Rate(per_second, burst))
    limited.check("message", ALICE, burst)

    with pytest.raises(LimitExceeded) as refused:
        limited.check("message", ALICE, number)

    clock.advance(refused.value.retry_after_ms / 1000)
    limited.check("message", ALICE, number)

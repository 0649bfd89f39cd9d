"""When a certificate is renewed, and how long a server waits after failures."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homeserver.certificates.renewal_rules import (
    LONGEST_PAUSE,
    Attempts,
    OrderedValidity,
    Subject,
    renewal_reason,
)
from tests.certificates.authority import DAY, SUBJECT

times = st.floats(0, 4e9)
OTHER_NAMES = Subject(SUBJECT.directory, frozenset({"example.org"}))
OTHER_DIRECTORY = Subject("https://other.example/directory", SUBJECT.names)


@pytest.mark.parametrize("days", [6, 47, 90])
def test_renewed_with_a_third_of_its_lifetime_left(days: int) -> None:
    """Whatever lifetimes authorities choose, there is time for further attempts."""
    held = OrderedValidity(SUBJECT, 0, days * DAY)

    assert renewal_reason(held, SUBJECT, days * DAY * 0.66) is None
    assert renewal_reason(held, SUBJECT, days * DAY * 0.67) is not None


@pytest.mark.parametrize("wanted", [OTHER_NAMES, OTHER_DIRECTORY])
def test_other_settings_need_another_certificate(wanted: Subject) -> None:
    """The operator changes the names, or leaves the authority for tests."""
    assert renewal_reason(OrderedValidity(SUBJECT, 0, 90 * DAY), wanted, 1) is not None


def test_a_clock_that_was_set_back_orders_nothing() -> None:
    """A certificate from the future is as good as another one would be."""
    assert renewal_reason(OrderedValidity(SUBJECT, 50 * DAY, 140 * DAY), SUBJECT, 0) is None


@given(st.lists(st.tuples(st.floats(0, 1e6), st.booleans()), max_size=30))
def test_authorities_refuse_at_most_five_times_an_hour(steps: list[tuple[float, bool]]) -> None:
    """Whenever the server looks, and however often it is restarted."""
    attempts, now, refusals = Attempts(), 1e9, []
    for passed, is_hastened in steps:
        now += passed
        if is_hastened:
            attempts = attempts.hastened()
        if attempts.may_try(SUBJECT, now):
            refusals.append(now)
            attempts = attempts.failed(SUBJECT, now, "refused")

    assert all(later - first > 3_600 for first, later in zip(refusals, refusals[5:], strict=False))
    assert all(b - a >= 899 for a, b in pairwise(refusals))


@given(times, times, st.integers(1, 40))
def test_no_pause_is_longer_than_a_day(failed_at: float, now: float, failures: int) -> None:
    """Wherever the clock is set, and whatever the file says."""
    attempts = Attempts(SUBJECT, failures, failed_at, 1e300)

    if not attempts.may_try(SUBJECT, now):
        assert attempts.may_try(SUBJECT, now + LONGEST_PAUSE)


@given(times)
def test_pauses_double_up_to_a_day(now: float) -> None:
    """The first failure is often corrected soon, a later one seldom."""
    attempts, pauses = Attempts(), []
    for _ in range(9):
        attempts = attempts.failed(SUBJECT, now, "refused")
        pauses.append(round((attempts.retry_at - now) / 60))

    assert pauses == [15, 30, 60, 120, 240, 480, 960, 1_440, 1_440]


def test_an_authority_that_is_away_is_tried_sooner() -> None:
    """The network comes up after the server; the authority has counted nothing."""
    attempts = Attempts().failed(SUBJECT, 0, "away", is_refusal=False)

    assert attempts.retry_at == 60
    assert attempts.failed(SUBJECT, 60, "refused").retry_at == 60 + 1_800


def test_what_the_operator_changed_is_tried_at_once() -> None:
    """A misspelt name is corrected, and the server started again."""
    attempts = Attempts().failed(OTHER_NAMES, 0, "refused").failed(OTHER_NAMES, 0, "refused")

    assert not attempts.may_try(OTHER_NAMES, 1)
    assert attempts.may_try(SUBJECT, 1)
    assert attempts.failed(SUBJECT, 1, "refused").failures == 1

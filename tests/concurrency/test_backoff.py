"""How long what failed is left alone."""

from hypothesis import given
from hypothesis import strategies as st

from homeserver.concurrency.backoff import (
    DESTINATION_RETRIES,
    MAX_FAILURES_WHEN_REACHED,
    PAUSE_WHEN_REACHED,
    Backoff,
    RetrySchedule,
)

NOW = 1_700_000_000.0
MIDDLE = 0.5  # the chance that makes a pause neither longer nor shorter


def fail(backoff: Backoff, times: int) -> Backoff:
    """After a number of failures, each as soon as it is allowed."""
    for _ in range(times):
        backoff = backoff.failed(max(NOW, backoff.retry_at), MIDDLE)
    return backoff


def test_a_server_that_never_failed_may_be_tried() -> None:
    """Strangers are not kept waiting."""
    assert Backoff().may_try(NOW)


def test_pauses_double_up_to_a_bound() -> None:
    """A server that is away costs little, and is found again within the hour."""
    pauses = []
    backoff = Backoff()
    for _ in range(12):
        backoff = fail(backoff, 1)
        pauses.append(backoff.retry_at - backoff.failed_at)

    assert pauses[:3] == [2.0, 4.0, 8.0]
    assert pauses[-1] == 3_600.0


def test_requests_that_fail_together_count_once() -> None:
    """Ten requests that meet one short outage do not silence a server for hours."""
    once = Backoff().failed(NOW, MIDDLE)

    assert once.failed(NOW + 1, MIDDLE) == once


def test_an_answer_ends_all_pauses() -> None:
    """The past is forgotten, but for the time of the answer."""
    assert fail(Backoff(), 5).succeeded(NOW) == Backoff(succeeded_at=NOW)


def test_a_server_that_is_heard_is_tried_at_once() -> None:
    """Messages that wait for a server go out when it is back, not an hour later."""
    backoff = fail(Backoff(), 8)
    later = backoff.failed_at + PAUSE_WHEN_REACHED

    assert not backoff.may_try(later)
    assert backoff.reached().may_try(later)


def test_being_heard_does_not_make_a_deaf_server_be_tried_each_time() -> None:
    """A server that sends, but cannot be reached, costs one attempt in a while."""
    backoff = fail(Backoff(), 3).reached()
    again = backoff.failed(backoff.retry_at, MIDDLE).reached()

    assert again.failures == MAX_FAILURES_WHEN_REACHED
    assert not again.may_try(again.failed_at + PAUSE_WHEN_REACHED / 2)


def test_a_server_that_is_heard_before_it_can_be_reached_is_tried_again_soon() -> None:
    """It may send before it listens, as it starts: that is no reason to wait for an hour."""
    backoff = fail(Backoff(), 10).reached()
    again = backoff.failed(backoff.retry_at, MIDDLE)

    assert again.retry_at - again.failed_at == DESTINATION_RETRIES.pause(
        MAX_FAILURES_WHEN_REACHED + 1
    )


@given(st.integers(0, 10_000), st.floats(0, 1))
def test_chance_moves_a_pause_by_a_quarter_at_most(failures: int, chance: float) -> None:
    """Servers come back to one that was away one after the other."""
    before = Backoff(failures=failures)

    pause = before.failed(NOW, chance).retry_at - NOW
    middle = before.failed(NOW, MIDDLE).retry_at - NOW

    assert 0.74 * middle <= pause <= 1.26 * middle


def test_the_last_pause_of_a_schedule_repeats() -> None:
    """However long something is away, it is looked for again."""
    schedule = RetrySchedule((0.1, 0.5, 1.0))

    assert [schedule.pause(failures) for failures in range(1, 6)] == [0.1, 0.5, 1.0, 1.0, 1.0]


def test_a_doubling_schedule_ends_at_its_bound() -> None:
    """Where doubling would pass it, the bound itself comes next."""
    assert RetrySchedule.doubling(60.0, 200.0).pauses == (60.0, 120.0, 200.0)


def test_without_jitter_chance_changes_nothing() -> None:
    """A single database is not met by many at once."""
    schedule = RetrySchedule((2.0,))

    assert schedule.pause(1, 0.0) == schedule.pause(1, 1.0) == 2.0

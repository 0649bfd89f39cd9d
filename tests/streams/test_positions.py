"""Positions: they follow the clock, and never run back, whatever the clock does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from homeserver.protocol.errors import Unavailable
from homeserver.streams.positions import (
    EPOCH_SECONDS,
    STEP,
    STEPS_PER_SECOND,
    Positions,
    position_at,
)

HOUR = 3600
SECOND = STEPS_PER_SECOND * STEP


def clock_at(seconds: float) -> Clock:
    clock = Clock()
    clock.rightNow = EPOCH_SECONDS + seconds
    return clock


def test_position_is_the_time() -> None:
    """Processes that share nothing but the time make positions in its order."""
    clock = clock_at(100.5)
    positions = Positions(clock, 0, 1000 * SECOND, slot=7)

    assert positions.next() == (100_500_000 << 10) + 7
    assert positions.next() == (100_500_001 << 10) + 7


def test_positions_begin_above_those_of_an_older_process() -> None:
    """A token of the process before stays below, also where the clock was set back since."""
    positions = Positions(clock_at(100), 200 * SECOND + 900, 300 * SECOND, slot=3)

    first = positions.next()

    assert 200 * SECOND + 900 < first <= 200 * SECOND + 900 + 2 * STEP


def test_clock_before_the_epoch_counts_on() -> None:
    """A machine without a battery begins in 1970; old databases have a counter as their bound."""
    positions = Positions(clock_at(-1_000_000), 4_000_000, 4_000_000 + SECOND)

    assert 4_000_000 < positions.next() < positions.next() < 4_000_000 + 4 * STEP


def test_slot_has_ten_bits() -> None:
    """A larger one would be part of the time, and its positions those of another process."""
    with pytest.raises(ValueError, match="below 1024"):
        Positions(clock_at(0), 0, SECOND, slot=STEP)


@given(
    slots=st.lists(st.integers(0, STEP - 1), min_size=2, max_size=2, unique=True),
    moves=st.lists(
        st.tuples(st.integers(0, 1), st.sampled_from([0.0, 1e-6, 0.5, HOUR, -HOUR])), max_size=40
    ),
)
def test_two_slots_never_make_the_same_position(
    slots: list[int], moves: list[tuple[int, float]]
) -> None:
    """Each process takes positions in growing order, wherever its clock jumps."""
    clocks = [clock_at(100_000), clock_at(100_000)]
    both = [
        Positions(clock, 0, 1_000_000 * SECOND, slot)
        for clock, slot in zip(clocks, slots, strict=True)
    ]
    taken: list[list[int]] = [[], []]
    for which, jump in moves:
        clocks[which].rightNow += jump
        both[which].begin_batch()
        taken[which] += [both[which].next(), both[which].next()]

    assert all(each == sorted(set(each)) for each in taken)
    assert not set(taken[0]) & set(taken[1])


def test_clock_beyond_the_bound_blocks_nothing() -> None:
    """No position is above the bound, which is in the database; the work goes on below it."""
    clock = clock_at(100)
    positions = Positions(clock, 0, 160 * SECOND)
    before = positions.next()
    clock.rightNow += HOUR
    positions.begin_batch()

    assert positions.next() == before + STEP
    assert not positions.is_low
    positions.bound = positions.bound_ahead(60)
    positions.begin_batch()
    assert positions.next() == position_at(clock.seconds())


def test_clock_that_is_set_back_blocks_nothing() -> None:
    """The bound is then moved ahead of the positions, not of the clock."""
    clock = clock_at(2 * HOUR)
    positions = Positions(clock, 0, 3 * HOUR * SECOND)
    before = positions.next()
    clock.rightNow -= HOUR
    positions.begin_batch()

    assert positions.next() == before + STEP
    assert positions.bound_ahead(60) == positions.last + 60 * SECOND


def test_nothing_above_the_bound_is_used() -> None:
    """A process after a crash begins at the bound."""
    positions = Positions(clock_at(100), 100 * SECOND, 100 * SECOND + 2 * STEP)

    assert positions.is_low
    assert [positions.next(), positions.next()] == [100 * SECOND + STEP, 100 * SECOND + 2 * STEP]
    with pytest.raises(Unavailable):
        positions.next()

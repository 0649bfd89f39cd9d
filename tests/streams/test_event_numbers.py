"""Event numbers, from ranges that the database has reserved."""

import pytest

from homeserver.protocol.errors import Unavailable
from homeserver.streams.event_numbers import EventNumbers


def test_no_number_is_used_that_is_not_reserved() -> None:
    """Unreserved numbers may be given to another process: an event would be refused or lost."""
    numbers = EventNumbers(7, 9)

    assert [numbers.next(), numbers.next()] == [8, 9]
    with pytest.raises(Unavailable):
        numbers.next()


def test_next_range_need_not_adjoin() -> None:
    """A range that another process reserved in between is never used here."""
    numbers = EventNumbers(0, 2)
    numbers.reserve(2, 3)
    numbers.reserve(100, 101)
    numbers.reserve(101, 102)

    assert numbers.left == 5
    assert [numbers.next() for _ in range(5)] == [1, 2, 3, 101, 102]

"""The clock of timers, and the wall clock."""

import time

import pytest
from twisted.internet.selectreactor import SelectReactor
from twisted.internet.task import Clock

from homeserver.concurrency.clock import steady, wall_seconds


def test_timers_do_not_follow_a_clock_that_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wait of two seconds takes two seconds, whatever the time of day becomes meanwhile."""
    reactor = steady(SelectReactor())
    now, before = time.time(), reactor.seconds()
    call = reactor.callLater(2, list)
    assert abs(before - now) < 1

    monkeypatch.setattr(time, "time", lambda: now - 3600)
    reactor.wall_seconds = time.time

    assert abs(reactor.seconds() - now) < 1
    assert abs(call.getTime() - now - 2) < 1
    assert abs(wall_seconds(reactor) - now + 3600) < 1


def test_clock_of_a_test_is_both() -> None:
    """Advancing a test's clock advances its wall-clock time, too."""
    clock = Clock()
    clock.advance(5)

    assert wall_seconds(clock) == 5

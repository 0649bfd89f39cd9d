"""Full garbage collections wait for an idle moment, but not without limit."""

import gc
from collections.abc import Iterator

import pytest
from twisted.internet.task import Clock

from homeserver.observability import garbage
from homeserver.observability.garbage import MAX_INTERVAL_SECONDS, TICK_SECONDS, GarbageCollection


class Process:
    """A process with a known CPU use and number of collections."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = Clock()
        self.busy = 0.0  # part of a processor
        self.collections = 0
        monkeypatch.setattr(garbage.time, "process_time", lambda: self._used)
        monkeypatch.setattr(garbage.gc, "collect", self._collect)
        monkeypatch.setattr(garbage.gc, "get_stats", lambda: [{"collections": self._short}])
        self._used = 0.0
        self._short = 0
        self.short_collections = 5  # in one tick

    def run(self, seconds: float) -> None:
        for _ in range(int(seconds / TICK_SECONDS)):
            self._used += self.busy * TICK_SECONDS
            self._short += self.short_collections
            self.clock.advance(TICK_SECONDS)

    def _collect(self) -> int:
        self.collections += 1
        return 0


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[Process]:
    thresholds = gc.get_threshold()
    process = Process(monkeypatch)
    GarbageCollection(process.clock).start()
    yield process
    gc.set_threshold(*thresholds)
    gc.unfreeze()


def test_first_requests_do_not_wait_for_a_collection(process: Process) -> None:
    """It begins when the server does, which has hardly any garbage then."""
    assert process.collections == 0


def test_busy_process_is_not_stopped(process: Process) -> None:
    """No request waits for a tenth of a second because Python chose that moment to clean up."""
    process.busy = 0.5

    process.run(600)

    assert process.collections == 0


def test_idle_process_collects_now_and_then(process: Process) -> None:
    """Garbage does not pile up on a server that has time to collect it."""
    process.run(600)

    assert 5 <= process.collections <= 10


def test_process_that_is_never_idle_collects_in_the_end(process: Process) -> None:
    """Even under constant load memory is bounded."""
    process.busy = 0.9

    process.run(MAX_INTERVAL_SECONDS + TICK_SECONDS)

    assert process.collections == 1


def test_process_that_makes_nothing_is_not_stopped(process: Process) -> None:
    """A quiet server with full caches would stop once a minute for nothing."""
    process.short_collections = 0

    process.run(600)

    assert process.collections == 0

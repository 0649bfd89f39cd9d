"""Metrics: what is recorded, and where the other values are read.

Requests and commits are recorded as they happen; all other values are read at a scrape from the
objects that have them (`Metrics.gauge`, `.counter`, `.show_caches`), so that these do not depend on
metrics. A finished request costs a third of a microsecond. `exposition.py` shows them to
Prometheus.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from homeserver.concurrency.lru_cache import LruCache
from homeserver.concurrency.periodic import PeriodicTask

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
LAG_INTERVAL = 0.25  # seconds


@dataclass(slots=True)
class Distribution:
    """The numbers of observations below each bound."""

    bounds: tuple[float, ...]
    counts: list[int] = field(init=False)
    total: float = 0.0

    def __post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative counts by upper bound, as the exposition format requires."""
        result, below = [], 0
        for bound, count in zip((*self.bounds, "+Inf"), self.counts, strict=True):
            below += count
            result.append((str(bound), float(below)))
        return result


class Reading(msgspec.Struct, frozen=True):
    """A value that is read at a scrape, and may fall unless it is a counter."""

    name: str
    text: str
    read: Callable[[], float]
    is_counter: bool = False


class LabelledReadings(msgspec.Struct, frozen=True):
    """Values, each with the value of a label, that are read at a scrape."""

    name: str
    text: str
    label: str
    read: Callable[[], Mapping[str, float]]


class Metrics:
    """All metrics of one server."""

    def __init__(self) -> None:
        self.requests: dict[tuple[str, str, int], Distribution] = {}
        self.commit_seconds = Distribution(SECONDS)
        self.commit_sizes = Distribution(SIZES)
        self.lag = Distribution(SECONDS)
        self.readings: list[Reading] = []
        self.labelled: list[LabelledReadings] = []
        self.caches: list[LruCache[Any, Any]] = []

    def request_finished(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request. `route` is the pattern of its path, never the path itself."""
        key = (method, route, status)
        times = self.requests.get(key)
        if times is None:
            times = self.requests[key] = Distribution(SECONDS)
        times.observe(seconds)

    def batch_committed(self, changes: int, seconds: float) -> None:
        """Count a group commit with a number of changes."""
        self.commit_sizes.observe(changes)
        self.commit_seconds.observe(seconds)

    def reactor_lagged(self, seconds: float) -> None:
        """Record by how much a call of the reactor was late."""
        self.lag.observe(seconds)

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Register a gauge `homeserver_<name>`; `read` returns its value, which may fall."""
        self.readings.append(Reading(f"homeserver_{name}", text, read))

    def gauges(
        self, name: str, text: str, label: str, read: Callable[[], Mapping[str, float]]
    ) -> None:
        """Register gauges `homeserver_<name>`; `read` returns the value for each label value."""
        self.labelled.append(LabelledReadings(f"homeserver_{name}", text, label, read))

    def counter(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Register a counter `homeserver_<name>_total`; `read` returns its rising value."""
        self.readings.append(Reading(f"homeserver_{name}", text, read, is_counter=True))

    def show_caches(self, caches: Iterable[LruCache[Any, Any]]) -> None:
        """Register the figures of caches, each under its name."""
        self.caches += sorted(caches, key=lambda cache: cache.name)


class ReactorLag:
    """A measurement of the reactor's latency, four times a second."""

    def __init__(self, clock: IReactorTime, metrics: Metrics) -> None:
        self._clock = clock
        self._metrics = metrics
        self._due = 0.0
        self._measuring = PeriodicTask(
            clock, LAG_INTERVAL, self._measure, name="the measurement of the reactor's lag"
        )

    def start(self) -> None:
        self._due = self._clock.seconds() + LAG_INTERVAL
        self._measuring.start()

    def stop(self) -> Deferred[None]:
        """Measure no more; fires when no measurement is under way."""
        return self._measuring.stop()

    def _measure(self) -> None:
        now = self._clock.seconds()
        self._metrics.reactor_lagged(max(0.0, now - self._due))
        # The task keeps to its grid: a late call skips the ticks that it missed.
        missed = int((now - self._due) // LAG_INTERVAL)
        self._due += (max(missed, 0) + 1) * LAG_INTERVAL

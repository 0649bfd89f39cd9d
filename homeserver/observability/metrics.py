"""Metrics in the format of Prometheus, one registry for each server.

Requests and commits are recorded as they happen; all other values are read at a scrape from the
objects that have them (`Metrics.gauge`, `.counter`, `.show_caches`), so that these do not depend on
metrics. A finished request costs a third of a microsecond.

Format: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from homeserver.concurrency.lru_cache import LruCache
from homeserver.concurrency.periodic import PeriodicTask
from homeserver.observability.cache_memory import memory_of
from homeserver.version import VERSION

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
LAG_INTERVAL = 0.25  # seconds
CACHE_FIGURES: tuple[
    tuple[str, str, type[GaugeMetricFamily | CounterMetricFamily], Callable[[Any], float]], ...
] = (
    ("hits", "Found in a cache.", CounterMetricFamily, lambda cache: cache.hits),
    ("misses", "Not found in a cache.", CounterMetricFamily, lambda cache: cache.misses),
    (
        "evictions",
        "Removed from a cache that was full.",
        CounterMetricFamily,
        lambda cache: cache.evictions,
    ),
    (
        "size",
        "What a cache holds, in the unit of its capacity.",
        GaugeMetricFamily,
        lambda cache: cache.size,
    ),
    (
        "bytes",
        "About the memory that a cache takes, by a sample of it.",
        GaugeMetricFamily,
        memory_of,
    ),
    (
        "capacity",
        "What a cache holds at most, mostly in entries.",
        GaugeMetricFamily,
        lambda cache: cache.capacity,
    ),
)


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


@dataclass(frozen=True, slots=True)
class _Reading:
    name: str
    text: str
    read: Callable[[], float]
    family: type[GaugeMetricFamily | CounterMetricFamily]


@dataclass(frozen=True, slots=True)
class _Labelled:
    name: str
    text: str
    label: str
    read: Callable[[], Mapping[str, float]]


class Metrics(Collector):
    """All metrics of one server."""

    def __init__(self) -> None:
        self._requests: dict[tuple[str, str, int], Distribution] = {}
        self._commit_seconds = Distribution(SECONDS)
        self._commit_sizes = Distribution(SIZES)
        self._lag = Distribution(SECONDS)
        self._readings: list[_Reading] = []
        self._labelled: list[_Labelled] = []
        self._caches: list[LruCache[Any, Any]] = []
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        for process_wide in (ProcessCollector, PlatformCollector, GCCollector):
            process_wide(registry=self._registry)

    def request_finished(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request. `route` is the pattern of its path, never the path itself."""
        key = (method, route, status)
        times = self._requests.get(key)
        if times is None:
            times = self._requests[key] = Distribution(SECONDS)
        times.observe(seconds)

    def batch_committed(self, changes: int, seconds: float) -> None:
        """Count a group commit with a number of changes."""
        self._commit_sizes.observe(changes)
        self._commit_seconds.observe(seconds)

    def reactor_lagged(self, seconds: float) -> None:
        """Record by how much a call of the reactor was late."""
        self._lag.observe(seconds)

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Register a gauge `homeserver_<name>`; `read` returns its value, which may fall."""
        self._readings.append(_Reading(f"homeserver_{name}", text, read, GaugeMetricFamily))

    def gauges(
        self, name: str, text: str, label: str, read: Callable[[], Mapping[str, float]]
    ) -> None:
        """Register gauges `homeserver_<name>`; `read` returns the value for each label value."""
        self._labelled.append(_Labelled(f"homeserver_{name}", text, label, read))

    def counter(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Register a counter `homeserver_<name>_total`; `read` returns its rising value."""
        self._readings.append(_Reading(f"homeserver_{name}", text, read, CounterMetricFamily))

    def show_caches(self, caches: Iterable[LruCache[Any, Any]]) -> None:
        """Register the figures of caches, each under its name."""
        self._caches += sorted(caches, key=lambda cache: cache.name)

    def exposition(self) -> bytes:
        """The response to a scrape, of type `CONTENT_TYPE`."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics to the registry."""
        yield InfoMetricFamily("homeserver", "The software.", value={"version": VERSION})
        yield self._collect_requests()
        for name, text, values in (
            ("commit_seconds", "Duration of a group commit.", self._commit_seconds),
            ("commit_changes", "Changes in a group commit.", self._commit_sizes),
            ("reactor_lag_seconds", "Delay of calls by a busy reactor.", self._lag),
        ):
            yield HistogramMetricFamily(
                f"homeserver_{name}", text, buckets=values.buckets(), sum_value=values.total
            )
        for reading in self._readings:
            yield reading.family(reading.name, reading.text, value=reading.read())
        for gauges in self._labelled:
            family = GaugeMetricFamily(gauges.name, gauges.text, labels=[gauges.label])
            for value, number in gauges.read().items():
                family.add_metric([value], number)
            yield family
        yield from self._collect_caches()

    def _collect_requests(self) -> Metric:
        family = HistogramMetricFamily(
            "homeserver_request_seconds",
            "Time from a request to its response.",
            labels=["method", "route", "status"],
        )
        for (method, route, status), times in self._requests.items():
            family.add_metric([method, route, str(status)], times.buckets(), times.total)
        return family

    def _collect_caches(self) -> Iterator[Metric]:
        for name, text, family, read in CACHE_FIGURES:
            figures = family(f"homeserver_cache_{name}", text, labels=["cache"])
            for cache in self._caches:
                figures.add_metric([cache.name], read(cache))
            yield figures


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

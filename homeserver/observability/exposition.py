"""Metrics in the format of Prometheus, one registry for each server.

Only a server with a listener that has metrics imports this module: what it needs takes a megabyte.

Format: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

import resource
from collections.abc import Callable, Iterator
from pathlib import Path
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

from homeserver.observability.cache_memory import memory_of
from homeserver.observability.metrics import Metrics
from homeserver.version import VERSION

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
STATM = Path("/proc/self/statm")  # proc(5)
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


def resident_bytes() -> int:
    """The resident memory of this process; 0 where the system does not say (not Linux)."""
    try:
        pages = int(STATM.read_text().split()[1])
    except OSError:
        return 0
    return pages * resource.getpagesize()


class Exposition(Collector):
    """The metrics of one server, as its registry collects them."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._bytes_at_start = resident_bytes()
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        for process_wide in (ProcessCollector, PlatformCollector, GCCollector):
            process_wide(registry=self._registry)

    def text(self) -> bytes:
        """The response to a scrape, of type `CONTENT_TYPE`."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics to the registry."""
        metrics = self._metrics
        yield InfoMetricFamily("homeserver", "The software.", value={"version": VERSION})
        yield GaugeMetricFamily(
            "homeserver_memory_at_start_bytes",
            "Resident memory of the process when its parts had been made: mostly code.",
            value=self._bytes_at_start,
        )
        yield self._collect_requests()
        for name, text, values in (
            ("commit_seconds", "Duration of a group commit.", metrics.commit_seconds),
            ("commit_changes", "Changes in a group commit.", metrics.commit_sizes),
            ("reactor_lag_seconds", "Delay of calls by a busy reactor.", metrics.lag),
        ):
            yield HistogramMetricFamily(
                f"homeserver_{name}", text, buckets=values.buckets(), sum_value=values.total
            )
        for reading in metrics.readings:
            family = CounterMetricFamily if reading.is_counter else GaugeMetricFamily
            yield family(reading.name, reading.text, value=reading.read())
        for readings in metrics.labelled:
            gauges = GaugeMetricFamily(readings.name, readings.text, labels=[readings.label])
            for value, number in readings.read().items():
                gauges.add_metric([value], number)
            yield gauges
        yield from self._collect_caches()

    def _collect_requests(self) -> Metric:
        family = HistogramMetricFamily(
            "homeserver_request_seconds",
            "Time from a request to its response.",
            labels=["method", "route", "status"],
        )
        for (method, route, status), times in self._metrics.requests.items():
            family.add_metric([method, route, str(status)], times.buckets(), times.total)
        return family

    def _collect_caches(self) -> Iterator[Metric]:
        for name, text, family, read in CACHE_FIGURES:
            figures = family(f"homeserver_cache_{name}", text, labels=["cache"])
            for cache in self._metrics.caches:
                figures.add_metric([cache.name], read(cache))
            yield figures

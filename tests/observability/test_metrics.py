"""Metrics: the values for Prometheus."""

from twisted.internet.task import Clock

from homeserver.concurrency.lru_cache import LruCache
from homeserver.observability.exposition import Exposition
from homeserver.observability.metrics import Metrics, ReactorLag


def lines(metrics: Metrics) -> list[str]:
    return Exposition(metrics).text().decode().splitlines()


def test_requests_are_counted_by_route_and_status() -> None:
    """An operator sees which endpoint is slow, and which one fails."""
    metrics = Metrics()
    route = "/_matrix/client/v3/sync"

    metrics.request_finished("GET", route, 200, 0.02)
    metrics.request_finished("GET", route, 200, 40.0)
    metrics.request_finished("GET", route, 429, 0.0)

    labels = f'method="GET",route="{route}",status="200"'
    text = lines(metrics)
    assert f'homeserver_request_seconds_bucket{{le="0.025",{labels}}} 1.0' in text
    assert f'homeserver_request_seconds_bucket{{le="+Inf",{labels}}} 2.0' in text
    assert f"homeserver_request_seconds_count{{{labels}}} 2.0" in text
    assert f"homeserver_request_seconds_sum{{{labels}}} 40.02" in text


def test_value_on_a_bound_belongs_to_its_bucket() -> None:
    """Buckets are "less than or equal", or percentiles would be wrong."""
    metrics = Metrics()

    metrics.batch_committed(5, 0.001)

    assert 'homeserver_commit_changes_bucket{le="5"} 1.0' in lines(metrics)
    assert 'homeserver_commit_changes_bucket{le="2"} 0.0' in lines(metrics)
    assert 'homeserver_commit_seconds_bucket{le="0.001"} 1.0' in lines(metrics)


def test_values_are_read_at_a_scrape() -> None:
    """The objects that do the work do not depend on metrics."""
    metrics = Metrics()
    position = 1
    metrics.gauge("long_polls", "Requests that wait for news.", lambda: 7)
    metrics.counter("events", "Events appended.", lambda: position)
    position = 5

    text = lines(metrics)

    assert "homeserver_long_polls 7.0" in text
    assert "homeserver_events_total 5.0" in text


def test_each_cache_shows_its_figures() -> None:
    """An operator sees which cache is too small."""
    metrics = Metrics()
    rooms: LruCache[int, str] = LruCache("rooms", 2)
    metrics.show_caches([rooms, LruCache("events", 5)])
    for number in (1, 2, 3):
        rooms.put(number, "a room")
    for number in (1, 2, 3):
        rooms.get(number)

    text = lines(metrics)

    assert 'homeserver_cache_hits_total{cache="rooms"} 2.0' in text
    assert 'homeserver_cache_misses_total{cache="rooms"} 1.0' in text
    assert 'homeserver_cache_evictions_total{cache="rooms"} 1.0' in text
    assert 'homeserver_cache_size{cache="rooms"} 2.0' in text
    assert 'homeserver_cache_capacity{cache="rooms"} 2.0' in text
    assert 'homeserver_cache_capacity{cache="events"} 5.0' in text


def test_memory_at_the_start_is_shown() -> None:
    """An operator sees what users have added to it."""
    text = lines(Metrics())

    (shown,) = (line for line in text if line.startswith("homeserver_memory_at_start_bytes"))
    assert 1e6 < float(shown.split()[1]) < 1e10


def test_two_servers_in_one_process_count_apart() -> None:
    """No registry is shared: figures of one server never show in another's."""
    one, other = Metrics(), Metrics()

    one.batch_committed(1, 0.1)

    assert "homeserver_commit_changes_count 1.0" in lines(one)
    assert "homeserver_commit_changes_count 0.0" in lines(other)


def test_reactor_that_is_late_shows_it() -> None:
    """A blocked reactor is seen before users complain."""
    clock, metrics = Clock(), Metrics()
    lag = ReactorLag(clock, metrics)
    lag.start()

    clock.advance(0.25)
    clock.advance(1.0)  # three ticks were missed: the call comes 0.75 seconds late
    clock.advance(0.25)
    lag.stop()

    text = lines(metrics)
    assert "homeserver_reactor_lag_seconds_count 3.0" in text
    assert "homeserver_reactor_lag_seconds_sum 0.75" in text

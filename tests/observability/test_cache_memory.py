"""What the metrics say of the memory of caches."""

from sys import getsizeof

from homeserver.concurrency.lru_cache import LruCache
from homeserver.observability.cache_memory import ENTRY_BYTES, MAX_OBJECTS, memory_of


def filled(size: int, count: int) -> LruCache[int, list[bytes]]:
    cache: LruCache[int, list[bytes]] = LruCache("texts", 1_000_000)
    for number in range(count):
        cache.put(number, [bytes(size), str(number).encode()])
    return cache


def test_a_cache_takes_about_what_its_values_take() -> None:
    """An operator sees which one to make smaller."""
    assert 10_000_000 < memory_of(filled(10_000, 1_000)) < 11_000_000
    assert memory_of(filled(10, 1_000)) < 1_000_000
    assert memory_of(filled(10, 0)) == 0


def test_a_cache_that_counts_bytes_is_believed() -> None:
    """It measures each value, not a few of them."""
    cache: LruCache[int, bytes] = LruCache(
        "texts", 10_000, size_of=lambda _, text: len(text), is_in_bytes=True
    )
    cache.put(1, bytes(5_000))
    cache.put(2, b"")

    assert memory_of(cache) == 5_000


def test_values_of_two_caches_count_once() -> None:
    """The sum over all caches is what they take together."""
    cache: LruCache[int, bytes] = LruCache(
        "texts", 10_000, size_of=lambda _, text: len(text), is_in_bytes=True, shares_values=True
    )
    cache.put(1, bytes(5_000))

    assert memory_of(cache) == ENTRY_BYTES


def test_large_values_are_measured_in_part() -> None:
    """A scrape delays no other request."""
    cache: LruCache[int, list[object]] = LruCache("lists", 10)
    cache.put(1, [bytes(1_000) for _ in range(50 * MAX_OBJECTS)])

    assert 2_500_000 < memory_of(cache) < 4_500_000


def test_a_mapping_counts_with_its_table_once() -> None:
    """Values of a cache may be mappings of hundreds: the table of one is no measure of its keys."""
    cache: LruCache[int, dict[bytes, str]] = LruCache("transactions", 100)
    for number in range(50):
        cache.put(number, {b"%016d" % each: "$event" for each in range(200)})

    entry = getsizeof(b"%016d" % 0)
    whole = 50 * (getsizeof(dict.fromkeys(range(200))) + 200 * entry)
    assert whole < memory_of(cache) < 2.5 * whole

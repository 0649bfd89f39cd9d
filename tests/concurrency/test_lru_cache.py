"""The cache: what it keeps, what it lets go, and what it counts."""

import pytest

from homeserver.concurrency.lru_cache import LruCache


def numbers(capacity: int) -> LruCache[str, int]:
    return LruCache("numbers", capacity)


def test_the_least_recently_used_value_goes() -> None:
    """What is in use stays in memory, however old it is."""
    cache = numbers(2)
    cache.put("a", 1)
    cache.put("b", 2)

    cache.get("a")
    cache.put("c", 3)

    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (1, None, 3)


def test_a_new_value_takes_the_place_of_the_old_one() -> None:
    """There is one value for a key, and it counts as used when it is put."""
    cache = numbers(2)
    cache.put("a", 1)
    cache.put("b", 2)

    cache.put("a", 3)
    cache.put("c", 4)

    assert dict(cache.items()) == {"a": 3, "c": 4}


def test_a_look_is_not_a_use() -> None:
    """Who only looks keeps nothing alive, and is not counted."""
    cache = numbers(2)
    cache.put("a", 1)
    cache.put("b", 2)

    seen = cache.peek("a")
    cache.put("c", 3)

    assert seen == 1
    assert "a" not in cache
    assert (cache.hits, cache.misses) == (0, 0)


def test_a_value_that_is_there_stays() -> None:
    """Of two who load the same at the same time, both get the one that was first."""
    cache = numbers(2)

    assert cache.setdefault("a", 1) == 1
    assert cache.setdefault("a", 2) == 1


def test_hits_misses_and_evictions_are_counted() -> None:
    """An operator sees whether a cache is large enough."""
    cache = numbers(1)

    cache.get("a")
    cache.put("a", 1)
    cache.get("a")
    cache.get("a")
    cache.put("b", 2)

    assert (cache.hits, cache.misses, cache.evictions, cache.size) == (2, 1, 1, 1)


def test_what_is_evicted_is_passed_on_with_its_key() -> None:
    """Connections are closed, and tables beside the cache kept equal; not for what is removed."""
    evicted: list[tuple[str, int]] = []
    cache: LruCache[str, int] = LruCache("numbers", 1, on_evict=lambda *one: evicted.append(one))

    cache.put("a", 1)
    cache.pop("a")
    cache.put("b", 2)
    cache.put("c", 3)

    assert evicted == [("b", 2)]


def texts(capacity: int) -> LruCache[str, list[str]]:
    return LruCache("texts", capacity, size_of=lambda _, text: len(text))


def test_values_are_bounded_by_what_they_take() -> None:
    """One large value drives out several small ones."""
    cache = texts(5)
    cache.put("a", ["x"] * 2)
    cache.put("b", ["x"] * 2)

    cache.put("c", ["x"] * 4)

    assert [key for key, _ in cache.items()] == ["c"]
    assert (cache.size, cache.evictions) == (4, 2)


def test_the_value_used_last_stays_however_large() -> None:
    """Its user has only just put it there, and would load it again and again."""
    cache = texts(5)
    cache.put("a", ["x"])

    cache.put("b", ["x"] * 9)

    assert [key for key, _ in cache.items()] == ["b"]


def test_a_value_that_has_grown_is_measured_again() -> None:
    """Values that follow the log take more with time."""
    cache = texts(5)
    first = cache.put("a", ["x"])
    cache.put("b", ["x"])

    first += ["x"] * 5
    cache.measure("a")
    before = len(cache)
    cache.shrink()

    assert (before, [key for key, _ in cache.items()], cache.size) == (2, ["b"], 1)


def test_sizes_of_removed_values_are_forgotten() -> None:
    """Otherwise the cache would be taken for full some day."""
    cache = texts(5)
    cache.put("a", ["x"] * 3)
    cache.put("b", ["x"])

    cache.pop("a")
    cache.pop("a")
    after_pop = cache.size
    cache.clear()

    assert (after_pop, cache.size, len(cache)) == (1, 0, 0)


def test_what_is_in_use_is_passed_over() -> None:
    """A room with a writer at work is never loaded a second time beside the first."""
    pinned = {1}
    cache: LruCache[str, int] = LruCache("numbers", 2, is_pinned=pinned.__contains__)
    cache.put("a", 1)
    cache.put("b", 2)

    cache.put("c", 3)
    with_pin = [key for key, _ in cache.items()]
    pinned.clear()
    cache.put("d", 4)

    assert with_pin == ["a", "c"]
    assert [key for key, _ in cache.items()] == ["c", "d"]


@pytest.mark.parametrize("count", [3, 10])
def test_a_cache_shrinks_to_its_capacity_once_nothing_is_in_use(count: int) -> None:
    """It may have had to grow beyond it."""
    pinned = set(range(count))
    cache: LruCache[int, int] = LruCache("numbers", 2, is_pinned=pinned.__contains__)
    for number in range(count):
        cache.put(number, number)
    grown = len(cache)

    pinned.clear()
    cache.shrink()

    assert (grown, len(cache)) == (count, 2)

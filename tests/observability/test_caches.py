"""Finding the caches of a server."""

from typing import Any

from twisted.internet.task import Clock

from homeserver.concurrency.lru_cache import LruCache
from homeserver.concurrency.periodic import PeriodicTask
from homeserver.observability.caches import caches_and_tasks_of


class _Owner:
    """Pretends to be of the server."""

    __module__ = "homeserver.owner"

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)

    def work(self) -> None:
        """A method, by which the owner is reached."""


class _Slotted:
    """The same without a dictionary."""

    __module__ = "homeserver.owner"
    __slots__ = ("cache", "unset")

    def __init__(self, cache: LruCache[int, int]) -> None:
        self.cache = cache


def cache(name: str) -> LruCache[int, int]:
    return LruCache(name, 10)


def names_of_caches(server: object) -> list[str]:
    """The names of the caches that are found."""
    caches, _ = caches_and_tasks_of(server)
    return [found.name for found in caches]


def test_caches_are_found_wherever_they_are_held() -> None:
    """In attributes, with or without slots, behind methods, and in lists."""
    api = _Owner(cache=cache("behind a method"))
    server = _Owner(
        cache=cache("own"),
        readers=[api.work],
        parts=(_Slotted(cache("slotted")),),
    )

    assert set(names_of_caches(server)) == {"own", "slotted", "behind a method"}


def test_each_cache_is_found_once() -> None:
    """Objects know each other in circles."""
    one, other = _Owner(cache=cache("shared")), _Owner()
    one.other, other.one, other.cache = other, one, one.cache

    assert names_of_caches(one) == ["shared"]


def test_periodic_tasks_are_found_as_well() -> None:
    """An operator sees when each clean-up ran, and whether it failed."""
    task = PeriodicTask(Clock(), 60.0, lambda: None, name="the clean-up")

    assert caches_and_tasks_of(_Owner(parts=[_Owner(task=task)])) == ([], [task])


def test_a_cache_without_a_name_is_left_out() -> None:
    """One of thousands would only make the metrics long."""
    owner = _Owner(caches=[cache(""), cache("one")])

    assert names_of_caches(owner) == ["one"]


def test_what_caches_hold_is_not_walked() -> None:
    """It is data, of which there may be much."""
    outer: LruCache[int, Any] = LruCache("outer", 10)
    outer.put(1, _Owner(cache=cache("inner")))

    assert names_of_caches(_Owner(cache=outer)) == ["outer"]

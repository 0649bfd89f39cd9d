"""The search for all caches and periodic tasks of a server, for its metrics.

They are constructed by the objects that use them, which do not depend on metrics. There is no list
of them, which could be incomplete: at its start the server walks its objects once, from the one
that holds all others.
"""

from collections.abc import Iterator
from functools import lru_cache
from types import MethodType
from typing import Any

from homeserver.concurrency.lru_cache import LruCache
from homeserver.concurrency.periodic import PeriodicTask

PACKAGES = ("homeserver", "federation", "appservices")


def caches_and_tasks_of(server: object) -> tuple[list[LruCache[Any, Any]], list[PeriodicTask]]:
    """All caches that have a name, and all periodic tasks.

    Attributes, methods, lists and tuples are followed. Objects of other packages are not searched,
    nor are mappings and what caches hold: their values are data.
    """
    caches: list[LruCache[Any, Any]] = []
    tasks: list[PeriodicTask] = []
    seen: dict[int, Any] = {}
    pending: list[Any] = [server]
    while pending:
        item = pending.pop()
        kind: Any = type(item)
        if id(item) in seen:
            continue
        seen[id(item)] = item  # held, so that no other object gets the same id
        if isinstance(item, MethodType):
            pending.append(item.__self__)
        elif isinstance(item, (list, tuple)):
            pending += item
        elif isinstance(item, LruCache):
            if item.name:
                caches.append(item)
        elif _is_searched(kind):
            pending += attributes_of(item)
            if isinstance(item, PeriodicTask):
                tasks.append(item)
    return caches, tasks


def attributes_of(item: Any) -> Iterator[Any]:
    """The values of an object's attributes, with or without slots."""
    yield from getattr(item, "__dict__", {}).values()
    kind: Any = type(item)
    for name in _slots_of(kind):
        value = getattr(item, name, None)
        if value is not None:
            yield value


@lru_cache(maxsize=2_000)
def _is_searched(kind: type) -> bool:
    return kind.__module__.partition(".")[0] in PACKAGES


@lru_cache(maxsize=2_000)
def _slots_of(kind: type) -> tuple[str, ...]:
    return tuple(name for each in kind.__mro__ for name in each.__dict__.get("__slots__", ()))

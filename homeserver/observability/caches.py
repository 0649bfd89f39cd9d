"""The search for all caches and periodic tasks of a server, for its metrics.

They are constructed by the objects that use them, which do not depend on metrics. There is no list
of them, which could be incomplete: at its start the server walks its objects once, from the one
that holds all others.
"""

from collections.abc import Iterator
from types import MethodType
from typing import Any, TypeVar

from homeserver.concurrency.lru_cache import LruCache
from homeserver.concurrency.periodic import PeriodicTask

Kind = TypeVar("Kind")
PACKAGES = ("homeserver", "federation", "appservices")


def caches_of(server: object) -> list[LruCache[Any, Any]]:
    """All caches that have a name."""
    return [cache for cache in _objects_of(server, LruCache) if cache.name]


def periodic_tasks_of(server: object) -> list[PeriodicTask]:
    """All periodic tasks."""
    return _objects_of(server, PeriodicTask)


def _objects_of(server: object, wanted: type[Kind]) -> list[Kind]:
    """All objects of a class that can be reached by attributes, methods, lists and tuples.

    Objects of other packages are not searched, nor are mappings: their values are data.
    """
    found: list[Kind] = []
    seen: dict[int, object] = {}
    pending = [server]
    while pending:
        item = pending.pop()
        if id(item) in seen:
            continue
        seen[id(item)] = item  # held, so that no other object gets the same id
        if isinstance(item, wanted):
            found.append(item)
        elif isinstance(item, MethodType):
            pending.append(item.__self__)
        elif isinstance(item, list | tuple):
            pending += item
        elif type(item).__module__.partition(".")[0] in PACKAGES:
            pending += attributes_of(item)
    return found


def attributes_of(item: object) -> Iterator[object]:
    """The values of an object's attributes, with or without slots."""
    yield from getattr(item, "__dict__", {}).values()
    for kind in type(item).__mro__:
        for name in kind.__dict__.get("__slots__", ()):
            value = getattr(item, name, None)
            if value is not None:
                yield value

"""The search for all caches of a server, for its metrics.

A cache is constructed by the object that uses it, which does not depend on metrics. There is no
list of caches, which could be incomplete: at its start the server walks its objects once, from the
one that holds all others.
"""

from collections.abc import Iterator
from types import MethodType
from typing import Any

from homeserver.concurrency.lru_cache import LruCache

PACKAGES = ("homeserver", "federation", "appservices")


def caches_of(server: object) -> list[LruCache[Any, Any]]:
    """All caches with a name that can be reached by attributes, methods, lists and tuples.

    Objects of other packages are not searched, nor are mappings: their values are data.
    """
    found: list[LruCache[Any, Any]] = []
    seen: dict[int, object] = {}
    pending = [server]
    while pending:
        item = pending.pop()
        if id(item) in seen:
            continue
        seen[id(item)] = item  # held, so that no other object gets the same id
        if isinstance(item, LruCache):
            found += [item] if item.name else []
        elif isinstance(item, MethodType):
            pending.append(item.__self__)
        elif isinstance(item, list | tuple):
            pending += item
        elif type(item).__module__.partition(".")[0] in PACKAGES:
            pending += _attributes(item)
    return found


def _attributes(item: object) -> Iterator[object]:
    yield from getattr(item, "__dict__", {}).values()
    for kind in type(item).__mro__:
        for name in kind.__dict__.get("__slots__", ()):
            value = getattr(item, name, None)
            if value is not None:
                yield value

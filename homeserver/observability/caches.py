"""The caches of a server, found for its metrics.

A cache is constructed by the object that uses it, which does not depend on metrics. There is no
list of caches, in which one could be missing: the objects of the server are walked once at its
start, from the one that holds all others.
"""

from collections.abc import Iterator
from types import MethodType
from typing import Any

from homeserver.concurrency.lru_cache import LruCache

PACKAGES = ("homeserver", "federation")


def caches_of(server: object) -> list[LruCache[Any, Any]]:
    """All caches with a name that can be reached by attributes, methods, lists and tuples.

    Objects of other packages are not searched, nor are mappings: their values are data.
    """
    found: list[LruCache[Any, Any]] = []
    seen: dict[int, object] = {}
    ahead = [server]
    while ahead:
        one = ahead.pop()
        if id(one) in seen:
            continue
        seen[id(one)] = one  # held, so that no other object gets the same id
        if isinstance(one, LruCache):
            found += [one] if one.name else []
        elif isinstance(one, MethodType):
            ahead.append(one.__self__)
        elif isinstance(one, list | tuple):
            ahead += one
        elif type(one).__module__.partition(".")[0] in PACKAGES:
            ahead += _attributes(one)
    return found


def _attributes(one: object) -> Iterator[object]:
    yield from getattr(one, "__dict__", {}).values()
    for kind in type(one).__mro__:
        for name in kind.__dict__.get("__slots__", ()):
            value = getattr(one, name, None)
            if value is not None:
                yield value

"""The memory that caches take, for metrics.

A cache whose sizes are bytes says so itself. Of the others some values are measured, with what they
refer to, and stand for all: that is enough to see which of a hundred caches takes the memory, and
costs the busy ones nothing.
"""

from collections import deque
from collections.abc import Mapping
from itertools import islice
from sys import getsizeof
from typing import Any

import msgspec

from homeserver.concurrency.lru_cache import LruCache
from homeserver.observability.caches import PACKAGES, attributes_of

SAMPLES = 4  # values of each cache
MAX_OBJECTS = 60  # of all of them, that are measured: a scrape takes a few milliseconds
ENTRY_BYTES = 200  # of the cache itself


def memory_of(cache: LruCache[Any, Any]) -> int:
    """About the bytes that a cache takes, without values that another one counts."""
    if cache.shares_values:
        return len(cache) * ENTRY_BYTES
    if cache.is_in_bytes:
        return cache.size
    samples = list(islice(cache.items(), SAMPLES))
    if not samples:
        return 0
    return len(cache) * (ENTRY_BYTES + _memory_of(samples) // len(samples))


def _memory_of(values: object) -> int:
    """The bytes of some values and what they refer to: data, and objects of this program."""
    seen: dict[int, object] = {}
    pending = deque([values])
    total = 0
    leaves: list[int] = []  # sizes of what refers to nothing further
    while pending and len(seen) < MAX_OBJECTS:
        value = pending.popleft()
        if id(value) in seen:
            continue
        seen[id(value)] = value
        size = getsizeof(value)
        total += size
        if isinstance(value, Mapping):
            pending.extend(value.keys())
            pending.extend(value.values())
        elif isinstance(value, list | tuple | set | frozenset | deque):
            pending.extend(value)
        elif isinstance(value, LruCache):
            pending.extend(value.items())
        elif isinstance(value, msgspec.Struct) or type(value).__module__.startswith(PACKAGES):
            pending.extend(attributes_of(value))
        else:
            leaves.append(size)
    # What was not reached has about the size of the leaves: the large containers come first.
    average = sum(leaves) // len(leaves) if leaves else total // len(seen)
    return total + average * len(pending)

"""A bounded number of slots, granted in rotation to all keys that wait for one.

A semaphore serves in the order of arrival, so a client with a hundred requests makes all others
wait. Here each key has a queue of its own and the queues are served in rotation; no key has more
than a share of the slots, and no queue grows without bound.
"""

from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from twisted.internet.defer import Deferred


class QueueFull(Exception):
    """Too many requests are waiting for a slot already."""


class FairSlots:
    """`size` slots, of which no key has more than `share` at a time.

    A key is a party with a fair share: an address, a server, a purpose. At most
    `max_waiting` wait under one key, and `max_waiting_in_all` under all together.
    """

    def __init__(self, size: int, *, share: int, max_waiting: int, max_waiting_in_all: int) -> None:
        self._free = size
        self._share = share
        self._max_waiting = max_waiting
        self._max_waiting_in_all = max_waiting_in_all
        self._held: Counter[str] = Counter()
        self._queues: OrderedDict[str, deque[Deferred[None]]] = OrderedDict()
        self.waiting = 0

    @asynccontextmanager
    async def slot(self, key: str) -> AsyncIterator[None]:
        """Hold a slot. Raises `QueueFull` if none is free and the queue is full."""
        if self._free and self._held[key] < self._share:
            self._take(key)
        else:
            await self._wait(key)
        try:
            yield
        finally:
            self._give_back(key)

    def _take(self, key: str) -> None:
        self._free -= 1
        self._held[key] += 1

    async def _wait(self, key: str) -> None:
        queue = self._queues.get(key)
        if (queue is not None and len(queue) >= self._max_waiting) or (
            self.waiting >= self._max_waiting_in_all
        ):
            raise QueueFull(f"too many requests wait for a slot: {self.waiting} in all")
        if queue is None:
            queue = self._queues[key] = deque()
        waiter: Deferred[None] = Deferred(lambda waiter: self._leave(key, waiter))
        queue.append(waiter)
        self.waiting += 1
        await waiter

    def _leave(self, key: str, waiter: Deferred[None]) -> None:
        self._queues[key].remove(waiter)
        self.waiting -= 1
        if not self._queues[key]:
            del self._queues[key]

    def _give_back(self, key: str) -> None:
        self._free += 1
        self._held[key] -= 1
        if not self._held[key]:
            del self._held[key]
        for waiting in self._queues:
            if self._held[waiting] < self._share:
                self._serve(waiting)
                return

    def _serve(self, key: str) -> None:
        waiter = self._queues[key].popleft()
        self.waiting -= 1
        if self._queues[key]:
            self._queues.move_to_end(key)
        else:
            del self._queues[key]
        self._take(key)
        waiter.callback(None)

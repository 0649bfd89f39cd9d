"""Staggered requests to several servers: each starts a little later than the one before.

A server that does not respond delays the caller by no more than the stagger delay. The requests
must have no effect, as several may be sent.

Spec: https://spec.matrix.org/v1.19/server-server-api/#joining-rooms
"""

from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Generic, Self, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from homeserver.concurrency.clock import Clock, DelayedCall

STAGGER_SECONDS = 2.0

ResponseT = TypeVar("ResponseT")


class StaggeredRequests(Generic[ResponseT]):
    """Iterates over (server, response), or the exception instead of the response, as they arrive.

    `ask` is called for each server, for the next one when the one before has failed or its delay is
    over. The caller ends with `close`, which cancels the requests in progress.
    """

    def __init__(
        self, clock: Clock, servers: Iterable[str], ask: Callable[[str], Awaitable[ResponseT]]
    ) -> None:
        self._clock = clock
        self._ask = ask
        self._servers = deque(servers)
        self._running: dict[str, Deferred[Any]] = {}
        self._arrived: deque[tuple[str, ResponseT | Exception]] = deque()
        self._waiter: Deferred[None] | None = None
        self._alarm: DelayedCall | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[str, ResponseT | Exception]:
        if not self._arrived and self._alarm is None:
            self._start_next()
        while not self._arrived:
            if not self._running:
                raise StopAsyncIteration
            self._waiter = Deferred()
            await self._waiter
        return self._arrived.popleft()

    def close(self) -> None:
        """Cancel all requests in progress."""
        self._servers.clear()
        self._stop_waiting()
        for running in [*self._running.values()]:
            running.cancel()

    def _start_next(self) -> None:
        self._stop_waiting()
        if not self._servers:
            return
        server = self._servers.popleft()
        if self._servers:
            self._alarm = self._clock.callLater(STAGGER_SECONDS, self._next_due)
        asking: Deferred[Any] = Deferred.fromCoroutine(self._request(server))
        self._running[server] = asking
        asking.addBoth(self._done, server)

    async def _request(self, server: str) -> ResponseT:
        return await self._ask(server)

    def _done(self, response: Any, server: str) -> None:
        self._running.pop(server, None)
        if isinstance(response, Failure):
            if response.check(CancelledError):
                return
            if not isinstance(response.value, Exception):
                response.raiseException()
            self._arrived.append((server, response.value))
            if self._waiter is not None:
                self._start_next()
        else:
            # No further server is asked while the caller tries the response.
            self._stop_waiting()
            self._arrived.append((server, response))
        if self._waiter is not None:
            waiter, self._waiter = self._waiter, None
            waiter.callback(None)

    def _next_due(self) -> None:
        self._alarm = None
        self._start_next()

    def _stop_waiting(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

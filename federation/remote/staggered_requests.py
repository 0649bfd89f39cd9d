"""Asking several servers, each a little later than the one before: the first good answer counts.

A server that does not answer at once holds up nobody for longer than the head start that it has.
What is asked must be harmless, as several may do it.

Spec: https://spec.matrix.org/v1.19/server-server-api/#joining-rooms
"""

from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Generic, Self, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from homeserver.concurrency.clock import Clock, DelayedCall

HEAD_START_SECONDS = 2.0

Answer = TypeVar("Answer")


class StaggeredRequests(Generic[Answer]):
    """Iterates over (server, answer), or the exception in place of the answer, as they come.

    `ask` is called with each server, with the next one when the one before has failed or its head
    start is over. To be left by `close`, which cancels what is still under way.
    """

    def __init__(
        self, clock: Clock, servers: Iterable[str], ask: Callable[[str], Awaitable[Answer]]
    ) -> None:
        self._clock = clock
        self._ask = ask
        self._servers = deque(servers)
        self._running: dict[str, Deferred[Any]] = {}
        self._come: deque[tuple[str, Answer | Exception]] = deque()
        self._wanted: Deferred[None] | None = None
        self._alarm: DelayedCall | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[str, Answer | Exception]:
        if not self._come and self._alarm is None:
            self._start_next()
        while not self._come:
            if not self._running:
                raise StopAsyncIteration
            self._wanted = Deferred()
            await self._wanted
        return self._come.popleft()

    def close(self) -> None:
        """Want no answer any more."""
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
            self._alarm = self._clock.callLater(HEAD_START_SECONDS, self._late)
        asking: Deferred[Any] = Deferred.fromCoroutine(self._asked(server))
        self._running[server] = asking
        asking.addBoth(self._answered, server)

    async def _asked(self, server: str) -> Answer:
        return await self._ask(server)

    def _answered(self, answer: Any, server: str) -> None:
        self._running.pop(server, None)
        if isinstance(answer, Failure):
            if answer.check(CancelledError):
                return
            if not isinstance(answer.value, Exception):
                answer.raiseException()
            self._come.append((server, answer.value))
            if self._wanted is not None:
                self._start_next()
        else:
            # Nobody else is bothered while the answer is tried.
            self._stop_waiting()
            self._come.append((server, answer))
        if self._wanted is not None:
            wanted, self._wanted = self._wanted, None
            wanted.callback(None)

    def _late(self) -> None:
        self._alarm = None
        self._start_next()

    def _stop_waiting(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

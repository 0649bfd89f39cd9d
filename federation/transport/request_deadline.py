"""Asking other servers: what is needed of the client for that, and how it ends in time.

A piece of work that asks a server for one thing after the other, none of which it may answer, has a
time for all of them together.

Spec: https://spec.matrix.org/v1.19/server-server-api/#retrieving-events
"""

from typing import Any, Protocol

from federation.transport.client import TIMEOUT_SECONDS, Query
from federation.transport.errors import OutOfTime
from homeserver.concurrency.clock import Clock


class FederationRequests(Protocol):
    """What is used of `FederationClient`."""

    async def get(self, server: str, path: str, query: Query | None = None, **options: Any) -> Any:
        """The answer to a GET request. Raises `FederationError`."""

    async def post(self, server: str, path: str, content: Any, **options: Any) -> Any:
        """The answer to a POST request. Raises `FederationError`."""


class RequestsWithDeadline:
    """Asks for so many seconds from now on, and raises `OutOfTime` thereafter."""

    def __init__(self, asker: FederationRequests, clock: Clock, seconds: float) -> None:
        self._asker = asker
        self._clock = clock
        self._end = clock.seconds() + seconds

    async def get(self, server: str, path: str, query: Query | None = None, **options: Any) -> Any:
        """As the asker does, in what time is left."""
        return await self._asker.get(server, path, query, **self._in_time(server, options))

    async def post(self, server: str, path: str, content: Any, **options: Any) -> Any:
        """As the asker does, in what time is left."""
        return await self._asker.post(server, path, content, **self._in_time(server, options))

    def _in_time(self, server: str, options: dict[str, Any]) -> dict[str, Any]:
        left = self._end - self._clock.seconds()
        if left <= 0:
            raise OutOfTime(server, "what is asked for has taken too long")
        return {**options, "timeout": min(options.get("timeout", TIMEOUT_SECONDS), left)}

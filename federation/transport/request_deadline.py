"""Federation requests that share one deadline.

Work that sends one request after the other, to a server that may respond to none of them, has one
time limit for all of them together.

Spec: https://spec.matrix.org/v1.19/server-server-api/#retrieving-events
"""

from typing import Any, Protocol

from federation.transport.client import TIMEOUT_SECONDS, Query
from federation.transport.errors import OutOfTime
from homeserver.concurrency.clock import Clock


class FederationRequests(Protocol):
    """The part of `FederationClient` that its users need."""

    async def get(self, server: str, path: str, query: Query | None = None, **options: Any) -> Any:
        """The response to a GET request. Raises `FederationError`."""

    async def post(self, server: str, path: str, content: Any, **options: Any) -> Any:
        """The response to a POST request. Raises `FederationError`."""


class RequestsWithDeadline:
    """Sends requests for `seconds` from now on, and raises `OutOfTime` thereafter."""

    def __init__(self, client: FederationRequests, clock: Clock, seconds: float) -> None:
        self._client = client
        self._clock = clock
        self._end = clock.seconds() + seconds

    async def get(self, server: str, path: str, query: Query | None = None, **options: Any) -> Any:
        """The same request, with a timeout within the deadline."""
        return await self._client.get(server, path, query, **self._in_time(server, options))

    async def post(self, server: str, path: str, content: Any, **options: Any) -> Any:
        """The same request, with a timeout within the deadline."""
        return await self._client.post(server, path, content, **self._in_time(server, options))

    def _in_time(self, server: str, options: dict[str, Any]) -> dict[str, Any]:
        left = self._end - self._clock.seconds()
        if left <= 0:
            raise OutOfTime(server, "the requests have taken too long")
        return {**options, "timeout": min(options.get("timeout", TIMEOUT_SECONDS), left)}

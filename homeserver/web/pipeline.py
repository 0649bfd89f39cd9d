"""What a request passes before its handler, and what its limits are: the settings of a listener."""

from typing import Protocol

import msgspec

from homeserver.concurrency.memory_budget import MemoryBudget
from homeserver.web.addresses import TrustedProxies
from homeserver.web.authentication import Authenticator, KnownParties, ServerAuthenticator
from homeserver.web.html import Pages
from homeserver.web.rate_limits import RateLimits


class RequestObserver(Protocol):
    """An observer of requests, for metrics; `route` is the path's pattern, "" if none matched."""

    def request_finished(self, method: str, route: str, status: int, seconds: float) -> None: ...


class RequestLimits(msgspec.Struct, frozen=True):
    """The limits of a client's requests: bytes of a body, and seconds."""

    max_body: int = 1_048_576
    request_timeout: float = 60.0
    idle_timeout: float = 120.0


def body_budget(size: int) -> MemoryBudget:
    """The memory for the bodies of all requests, of which an address gets a quarter."""
    return MemoryBudget(size, size // 4)


class RequestPipeline(msgspec.Struct, frozen=True):
    """The collaborators that handle a request before its handler."""

    authenticator: Authenticator
    rate_limits: RateLimits
    proxies: TrustedProxies
    bounds: RequestLimits = RequestLimits()
    observer: RequestObserver | None = None
    servers: ServerAuthenticator | None = None  # if routes are served to other servers
    parties: KnownParties | None = None  # without them, addresses are counted
    bodies: MemoryBudget = msgspec.field(default_factory=lambda: body_budget(268_435_456))
    pages: Pages | None = None  # if users may see errors in a browser
    logs_requests: bool = True  # whether anybody reads the line of each request

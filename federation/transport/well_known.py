"""Delegations: the server names in `/.well-known/matrix/server` of hosts, fetched and cached.

A response is cached for as long as its headers say, within bounds; a failure for a minute at first,
and twice as long with each that follows, up to an hour. If a host that has named its server fails
to respond, rather than responding that it names none, its last response stays in use until it is
two days old: a web site that is down for a moment does not cut off its homeserver.

Spec: https://spec.matrix.org/v1.19/server-server-api/#getwell-knownmatrixserver
"""

from typing import Any

import msgspec
from twisted.logger import Logger
from twisted.web.http_headers import Headers

from federation.transport.discovery_rules import parse_delegation
from homeserver.concurrency.backoff import RetrySchedule
from homeserver.concurrency.lru_cache import LruCache
from homeserver.concurrency.single_flight import SingleFlight
from homeserver.outbound.cache_lifetimes import cache_lifetime
from homeserver.outbound.http_client import OutboundClient, OutboundError

DEFAULT_SECONDS = 86_400.0
MIN_SECONDS = 60.0
MAX_SECONDS = 2 * 86_400.0
RETRIES = RetrySchedule.doubling(60.0, 3_600.0)
TIMEOUT_SECONDS = 10.0
MAX_BODY = 51_200  # bytes
MAX_HOSTS = 10_000
TEMPORARY = frozenset({408, 425, 429, 500, 502, 503, 504})

log = Logger()


class Delegation(msgspec.Struct, frozen=True):
    """The server name in the last response of a host; `failures` counts those since."""

    server_name: str | None
    fetched_at: float
    expires_at: float
    failures: int = 0


class WellKnownDelegations:
    """The delegations of all hosts. `reactor` is the clock."""

    def __init__(self, reactor: Any, client: OutboundClient) -> None:
        self._clock = reactor
        self._client = client
        self._known: LruCache[str, Delegation] = LruCache("well_known_delegations", MAX_HOSTS)
        self._fetching: SingleFlight[str, Delegation] = SingleFlight()

    async def find(self, host: str) -> str | None:
        """The server name that a host delegates to."""
        known = self._known.get(host)
        if known is None or known.expires_at <= self._clock.seconds():
            known = await self._fetching.join(host, lambda: self._fetch(host))
        return known.server_name

    async def _fetch(self, host: str) -> Delegation:
        last = self._known.get(host)
        try:
            response = await self._client.request(
                "GET",
                f"https://{host}/.well-known/matrix/server",
                max_body=MAX_BODY,
                timeout=TIMEOUT_SECONDS,
                only_https=True,
            )
        except OutboundError as error:
            log.debug("no delegation of {host}: {error}", host=host, error=error)
            found = self._failed(last, is_temporary=True)
        else:
            server_name = parse_delegation(response.body) if response.status == 200 else None
            if server_name is None:
                found = self._failed(last, is_temporary=response.status in TEMPORARY)
            else:
                now = self._clock.seconds()
                found = Delegation(server_name, now, now + lifetime(response.headers, now))
        self._known.put(host, found)
        return found

    def _failed(self, last: Delegation | None, *, is_temporary: bool) -> Delegation:
        now = self._clock.seconds()
        failures = last.failures + 1 if last else 1
        pause = RETRIES.pause(failures)
        if is_temporary and last is not None and last.server_name is not None:
            end = last.fetched_at + MAX_SECONDS
            if now < end:
                return Delegation(
                    last.server_name, last.fetched_at, min(now + pause, end), failures
                )
        return Delegation(None, now, now + pause, failures)


def lifetime(headers: Headers, now: float) -> float:
    """The seconds for which a response received `now` may be cached, within our bounds."""
    return cache_lifetime(
        headers, now, default=DEFAULT_SECONDS, least=MIN_SECONDS, most=MAX_SECONDS
    )

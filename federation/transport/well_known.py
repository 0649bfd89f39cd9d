"""Delegations: what `/.well-known/matrix/server` of a host names, fetched and remembered.

An answer is kept for as long as its headers say, within bounds; a failure for a minute at first,
and twice as long with each that follows, up to an hour. Where a host that has named its server
fails to answer, rather than answering that it names none, its last answer stays in use until it is
two days old: a web site that is down for a moment does not cut off its homeserver.

Spec: https://spec.matrix.org/v1.19/server-server-api/#getwell-knownmatrixserver
"""

from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from twisted.logger import Logger
from twisted.web.http_headers import Headers

from federation.transport.discovery_rules import parse_delegation
from homeserver.concurrency.backoff import RetrySchedule
from homeserver.concurrency.lru_cache import LruCache
from homeserver.concurrency.single_flight import SingleFlight
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


@dataclass(frozen=True, slots=True)
class Delegation:
    """What a host named when it was last asked; `failures` are those since it named a server."""

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
            answer = await self._client.request(
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
            server_name = parse_delegation(answer.body) if answer.status == 200 else None
            if server_name is None:
                found = self._failed(last, is_temporary=answer.status in TEMPORARY)
            else:
                now = self._clock.seconds()
                found = Delegation(server_name, now, now + lifetime(answer.headers, now))
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
    """For how many seconds an answer that came `now` may be used, within our bounds.

    `Cache-Control` goes before `Expires` (RFC 9111, section 5.3).
    """
    directives = _cache_control(headers)
    seconds = DEFAULT_SECONDS
    if "no-store" in directives or "no-cache" in directives:
        seconds = 0.0
    elif "max-age" in directives:
        value = directives["max-age"].strip('"')
        # What is no number says nothing; stale is the safe reading (RFC 9111, section 4.2.1).
        is_number = value.isascii() and value.isdigit()
        seconds = min(float(value[:12]), MAX_SECONDS) if is_number else 0.0
        seconds -= _age(headers)
    elif (expires := headers.getRawHeaders("Expires")) is not None:
        try:
            seconds = parsedate_to_datetime(expires[0]).timestamp() - now
        except (ValueError, OverflowError):
            seconds = 0.0
    return min(max(seconds, MIN_SECONDS), MAX_SECONDS)


def _cache_control(headers: Headers) -> dict[str, str]:
    values = ",".join(headers.getRawHeaders("Cache-Control") or ())
    pairs = (directive.strip().partition("=") for directive in values.split(","))
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def _age(headers: Headers) -> float:
    """How long the answer has lain in somebody else's cache."""
    value = (headers.getRawHeaders("Age") or ["0"])[0]
    return float(value[:12]) if value.isascii() and value.isdigit() else 0.0

"""SRV records: the hosts and ports that offer a service, asked of the name servers and cached.

A name server that does not respond, or fails, is treated like one without a record, though not for
long: the certificate is checked against the same name in either case, so that the default port is a
guess that can do no harm.

Spec: https://spec.matrix.org/v1.19/server-server-api/#resolving-server-names
"""

import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from twisted.internet.defer import CancelledError
from twisted.internet.defer import TimeoutError as NoAnswerInTime
from twisted.logger import Logger
from twisted.names.client import Resolver
from twisted.names.dns import SRV
from twisted.names.error import (
    AuthoritativeDomainError,
    DNSNameError,
    DNSQueryTimeoutError,
    ResolverError,
)

from federation.transport.discovery_rules import Service, in_order
from homeserver.concurrency.lru_cache import LruCache
from homeserver.concurrency.single_flight import SingleFlight

RESOLV_CONF = Path("/etc/resolv.conf")
TIMEOUTS = (2, 4)  # seconds, one for each attempt
MIN_SECONDS = 30.0
MAX_SECONDS = 3_600.0
NEGATIVE_CACHE_SECONDS = 300.0  # for names without a record
FAILURE_SECONDS = 60.0
MAX_NAMES = 10_000
MAX_RECORDS = 20  # of one name
DNS_PORT = 53

NO_ANSWER = (
    NoAnswerInTime,
    DNSQueryTimeoutError,
    ResolverError,
    CancelledError,
    OSError,
    ValueError,  # other errors of name servers, and names that DNS cannot hold
)

log = Logger()


class Records(msgspec.Struct, frozen=True):
    """The records of a name; `services` is `None` where there is no such name."""

    services: Sequence[Service] | None
    expires_at: float


class ServiceRecords:
    """SRV records of all names. `name_servers` gives address and port of each server to ask."""

    def __init__(
        self, reactor: Any, name_servers: Callable[[], Sequence[tuple[str, int]]] | None = None
    ) -> None:
        self._reactor = reactor
        self._name_servers = name_servers or system_name_servers
        self._known: LruCache[str, Records] = LruCache("service_records", MAX_NAMES)
        self._asking: SingleFlight[str, Records] = SingleFlight()

    async def find(self, name: str) -> Sequence[Service] | None:
        """The records of a name in the order in which to try them."""
        known = self._known.get(name)
        if known is None or known.expires_at <= self._reactor.seconds():
            known = await self._asking.join(name, lambda: self._ask(name))
        if known.services is None:
            return None
        # Load is spread by chance, so the order is drawn again each time.
        return in_order(known.services, random.random)

    async def _ask(self, name: str) -> Records:
        now = self._reactor.seconds()
        try:
            resolver = Resolver(
                servers=list(self._name_servers()), timeout=TIMEOUTS, reactor=self._reactor
            )
            answers, _, _ = await resolver.lookupService(name)
        except (DNSNameError, AuthoritativeDomainError):
            found = Records(None, now + NEGATIVE_CACHE_SECONDS)
        except NO_ANSWER as error:
            log.warn(
                "no name server responded for {name}: {error}",
                name=name,
                error=type(error).__name__,
            )
            found = Records(None, now + FAILURE_SECONDS)
        else:
            found = _records(answers, now)
        self._known.put(name, found)
        return found


def system_name_servers() -> list[tuple[str, int]]:
    """The name servers of this machine."""
    try:
        text = RESOLV_CONF.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    return parse_resolv_conf(text)


def parse_resolv_conf(text: str) -> list[tuple[str, int]]:
    """The name servers in a file in the format of resolv.conf(5); if none, the local machine.

    A `Resolver` of Twisted can parse the file itself, but fails for a file that it may not read and
    for a line without an address, and looks at the file every minute until the process ends.
    """
    found = re.findall(r"^[ \t]*nameserver[ \t]+([^\s%]+)", text, re.MULTILINE)
    return [(address, DNS_PORT) for address in found] or [("127.0.0.1", DNS_PORT)]


def _records(answers: Sequence[Any], now: float) -> Records:
    services: list[Service] = []
    ttls = [MAX_SECONDS]
    for answer in answers:
        if answer.type == SRV and len(services) < MAX_RECORDS:
            payload = answer.payload
            host = payload.target.name.decode("ascii", "replace").rstrip(".") or "."
            services.append(Service(payload.priority, payload.weight, host, payload.port))
            ttls.append(float(answer.ttl))
    if not services:
        return Records(None, now + NEGATIVE_CACHE_SECONDS)
    return Records(services, now + max(min(ttls), MIN_SECONDS))

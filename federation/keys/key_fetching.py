"""Fetches the keys of other servers: from the server itself, or from trusted notaries.

Concurrent needs share one request; a request is repeated only a few times, and then once a minute,
however many events and requests are signed with keys that are unavailable.

An unknown client can cause key requests, with a request that claims to come from any server, and
can choose names that take long to resolve. So slots are shared fairly between addresses and the
events of rooms: a flood from one address delays no other.

Spec: https://spec.matrix.org/v1.19/server-server-api/#retrieving-server-keys
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from federation.keys.key_store import KeyStore
from federation.transport.client import FederationClient
from federation.transport.errors import FederationError
from federation.transport.lenient_lists import FewElements
from homeserver.concurrency.clock import wall_seconds
from homeserver.concurrency.fair_slots import FairSlots, QueueFull
from homeserver.concurrency.single_flight import SingleFlight
from homeserver.protocol.errors import LimitExceeded
from homeserver.protocol.json_elements import decodable
from homeserver.protocol.signing.server_keys import InvalidServerKeys, ServerKeys, parse_server_keys
from homeserver.web.addresses import network_of
from homeserver.web.rate_limits import RateLimits

TIMEOUT_SECONDS = 15.0
MAX_RESPONSE_BYTES = 32_768  # bytes, of one server's keys
MAX_SERVERS_PER_QUERY = 100  # servers in one request to a notary
MAX_CONCURRENT_SERVERS = 50  # servers with a request in progress
MAX_FOR_EVENTS = 40  # of them, for events of rooms
MAX_FOR_ADDRESS = 5  # of them, for requests from one address
MAX_WAITING = 100  # requests from one address
MAX_WAITING_IN_ALL = 2_000  # requests from all addresses
MAX_WAITING_FOR_EVENTS = 50_000  # more than there are servers
RETRY_AFTER_MS = 15_000

FOR_EVENTS = "events"  # in place of an address: keys are needed for events of rooms

log = Logger()


class NotaryResponse(msgspec.Struct):
    """The response of a notary: the signed keys of several servers."""

    server_keys: FewElements = []


class FetchRate(msgspec.Struct, frozen=True):
    """The rate limit of key requests for one server."""

    per_second: float = 1 / 60
    burst: int = 10


class KeyFetcher:
    """Fetches keys into a `KeyStore`."""

    def __init__(
        self,
        clock: IReactorTime,
        client: FederationClient,
        store: KeyStore,
        notaries: Sequence[str] = (),
    ) -> None:
        self._clock = clock
        self._client = client
        self._store = store
        self._notaries = notaries
        self._wanting: SingleFlight[tuple[str, str], bool] = SingleFlight()
        self._fetching: SingleFlight[str, bool] = SingleFlight()
        self._for_events = FairSlots(
            MAX_FOR_EVENTS,
            share=MAX_FOR_EVENTS,
            max_waiting=MAX_WAITING_FOR_EVENTS,
            max_waiting_in_all=MAX_WAITING_FOR_EVENTS,
        )
        self._for_requests = FairSlots(
            MAX_CONCURRENT_SERVERS - MAX_FOR_EVENTS,
            share=MAX_FOR_ADDRESS,
            max_waiting=MAX_WAITING,
            max_waiting_in_all=MAX_WAITING_IN_ALL,
        )
        self._pace = RateLimits(clock, {"server": FetchRate(), "notary": FetchRate()})

    async def from_origin(
        self, server_name: str, *, despite_backoff: bool = False, address: str = FOR_EVENTS
    ) -> bool:
        """Fetch the keys of a server from itself; returns whether that succeeded.

        `despite_backoff`: although it failed lately, as when it has just sent something. `address`:
        the source of an unauthenticated request that needs the keys; raises `LimitExceeded` where
        too many such requests wait.
        """
        party = address if address == FOR_EVENTS else network_of(address)
        slots = self._for_events if party == FOR_EVENTS else self._for_requests

        async def fetch() -> bool:
            async with slots.slot(party):
                # A request in one queue must not wait for another queue, so they are joined only
                # here.
                return await self._fetching.join(
                    server_name, lambda: self._from_origin(server_name, despite_backoff)
                )

        try:
            return await self._wanting.join((party, server_name), fetch)
        except QueueFull:
            raise LimitExceeded(
                RETRY_AFTER_MS, "Too many requests are waiting for server keys"
            ) from None

    async def from_notaries(
        self,
        wanted: Mapping[str, Mapping[str, int]],
        check_notary: Callable[[str, Any], Awaitable[None]],
    ) -> None:
        """Fetch keys from the notaries: server, key id, and the time up to which it should be
        valid.

        `check_notary` raises `ValueError` unless a response has the signature of its notary.
        """
        names = [name for name in wanted if self._may_ask("notary", name)]
        for start in range(0, len(names), MAX_SERVERS_PER_QUERY):
            requested = {
                name: wanted[name] for name in names[start : start + MAX_SERVERS_PER_QUERY]
            }
            for notary in self._notaries:
                requested = {name: keys for name, keys in requested.items() if name != notary}
                known = (
                    await self._from_notary(notary, requested, check_notary) if requested else set()
                )
                requested = {name: keys for name, keys in requested.items() if name not in known}

    async def _from_origin(self, server_name: str, despite_backoff: bool) -> bool:
        if not self._may_ask("server", server_name):
            return False
        try:
            response = await self._client.get(
                server_name,
                "/_matrix/key/v2/server",
                timeout=TIMEOUT_SECONDS,
                max_response=MAX_RESPONSE_BYTES,
                signed=False,
                despite_backoff=despite_backoff,
            )
            now_ms = self._now_ms()
            found = parse_server_keys(response, server_name, now_ms)
        except (FederationError, InvalidServerKeys) as error:
            log.info("no keys of {server}: {error}", server=server_name, error=error)
            return False
        await self._store.add(found, now_ms, from_origin=True)
        return True

    async def _from_notary(
        self,
        notary: str,
        requested: Mapping[str, Mapping[str, int]],
        check_notary: Callable[[str, Any], Awaitable[None]],
    ) -> set[str]:
        """Query one notary; returns the servers of which it had keys."""
        criteria = {
            server: {key_id: {"minimum_valid_until_ts": ts} for key_id, ts in keys.items()}
            for server, keys in requested.items()
        }
        try:
            response = await self._client.post(
                notary,
                "/_matrix/key/v2/query",
                {"server_keys": criteria},
                response_type=NotaryResponse,
                timeout=TIMEOUT_SECONDS,
                max_response=MAX_RESPONSE_BYTES * len(requested),
            )
        except FederationError as error:
            log.info("no keys from the notary {notary}: {error}", notary=notary, error=error)
            return set()
        known = set()
        for signed in decodable(response.server_keys, dict[str, Any]):
            found = await self._checked(notary, signed, requested, check_notary)
            if found is not None:
                await self._store.add(found, self._now_ms(), from_origin=False)
                known.add(found.server_name)
        return known

    async def _checked(
        self,
        notary: str,
        response: Any,
        requested: Mapping[str, Mapping[str, int]],
        check_notary: Callable[[str, Any], Awaitable[None]],
    ) -> ServerKeys | None:
        """The keys in a notary's response, if requested, signed by the notary and well-formed."""
        server_name = response.get("server_name")
        if not isinstance(server_name, str) or server_name not in requested:
            return None
        try:
            await check_notary(notary, response)
            return parse_server_keys(response, server_name, self._now_ms())
        except ValueError as error:
            log.warn("bad response of the notary {notary}: {error}", notary=notary, error=error)
            return None

    def _may_ask(self, limit: str, server_name: str) -> bool:
        try:
            self._pace.check(limit, server_name)
        except LimitExceeded:
            return False
        return True

    def _now_ms(self) -> int:
        return int(wall_seconds(self._clock) * 1000)

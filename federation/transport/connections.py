"""Connections to other servers: kept open for the next request, a few for each server.

A server that moved gets new connections: the old ones close when they are idle. Beyond
`MAX_SERVERS`, the least recently used server loses its connections.

Spec: https://spec.matrix.org/v1.19/server-server-api/#resolving-server-names
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.web.client import URI, Agent, HTTPConnectionPool
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from federation.transport.discovery_rules import Address
from homeserver.concurrency.lru_cache import LruCache
from homeserver.outbound.client_tls import ClientTls
from homeserver.outbound.graceful_close import ConnectionTracker
from homeserver.outbound.networks import Network

CONNECT_SECONDS = 10.0
IDLE_SECONDS = 60
MAX_IDLE = 4  # connections to one server
MAX_CONCURRENT_REQUESTS = 16  # requests to one server; others wait
MAX_SERVERS = 200  # with connections that are kept open


class Peer(msgspec.Struct, frozen=True, eq=False):
    """One server: the agent that sends requests there, and the slots for those in progress."""

    address: Address
    agent: Agent
    slots: DeferredSemaphore
    pool: HTTPConnectionPool


class Connections:
    """The peers of all servers. `await stop()` when there will be no more requests."""

    def __init__(self, reactor: Any, tls: ClientTls, network: Network) -> None:
        self._reactor = reactor
        self._network = network
        self._tls = tls
        self._open = ConnectionTracker(reactor)
        self._peers: LruCache[str, Peer] = LruCache(
            "server_connections", MAX_SERVERS, on_evict=lambda _, peer: _close(peer)
        )

    def to(self, server_name: str, address: Address) -> Peer:
        """The peer for a server at this address."""
        peer = self._peers.get(server_name)
        if peer is not None and _is_same(peer.address, address):
            return peer
        if peer is not None:
            _close(peer)
        peer = self._make(address)
        self._peers.put(server_name, peer)
        return peer

    async def stop(self) -> None:
        """End all connections."""
        for peer in self._peers.values():
            _close(peer)
        self._peers.clear()
        await self._open.end()

    def _make(self, address: Address) -> Peer:
        pool = HTTPConnectionPool(self._reactor, persistent=True)
        pool.maxPersistentPerHost = MAX_IDLE
        pool.cachedConnectionTimeout = IDLE_SECONDS
        tls = self._tls.to(address.certificate_name)
        endpoints = [
            wrapClientTLS(
                tls,
                HostnameEndpoint(self._network, target.host, target.port, timeout=CONNECT_SECONDS),
            )
            for target in address.targets
        ]
        agent = Agent.usingEndpointFactory(
            self._reactor, _Fixed(FirstReachable(self._open, endpoints)), pool
        )
        return Peer(address, agent, DeferredSemaphore(MAX_CONCURRENT_REQUESTS), pool)


@implementer(IStreamClientEndpoint)
class FirstReachable:
    """Connects to the first of several endpoints that can be connected to."""

    def __init__(
        self, open_connections: ConnectionTracker, endpoints: Sequence[IStreamClientEndpoint]
    ) -> None:
        self._open = open_connections
        self._endpoints = endpoints

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect (for Twisted)."""
        return Deferred.fromCoroutine(self._connect(protocolFactory))

    async def _connect(self, factory: IProtocolFactory) -> IProtocol:
        connection: Any = await self._first(self._open.wrap(factory))
        protocol: IProtocol = connection.wrappedProtocol
        return protocol

    async def _first(self, factory: IProtocolFactory) -> IProtocol:
        *others, last = self._endpoints
        for endpoint in others:
            try:
                return await endpoint.connect(factory)
            except CancelledError:
                raise
            except Exception:  # noqa: S112  # the next one may work
                continue
        return await last.connect(factory)


@implementer(IAgentEndpointFactory)
class _Fixed:
    """Leads every request to one endpoint: the URL names the host of the header, not an address."""

    def __init__(self, endpoint: IStreamClientEndpoint) -> None:
        self._endpoint = endpoint

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        return self._endpoint


def _is_same(old: Address, new: Address) -> bool:
    """Whether connections to the old address serve the new one: SRV records change their order."""
    return (
        set(old.targets) == set(new.targets)
        and old.host_header == new.host_header
        and old.certificate_name == new.certificate_name
    )


def _close(peer: Peer) -> None:
    peer.pool.closeCachedConnections()

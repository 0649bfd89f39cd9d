"""The network for outgoing connections: name resolution, and the allowed addresses.

A `Network` is a reactor, as far as Twisted's endpoints use it. The operating system resolves names,
which includes `/etc/hosts`, in a separate pool of threads; an address is never looked up.
`PublicOnlyNetwork` connects to public addresses only.
"""

import socket
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import Any

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import (
    IAddress,
    IConnector,
    IDelayedCall,
    IHostnameResolver,
    IHostResolution,
    IReactorPluggableNameResolver,
    IReactorTime,
    IResolutionReceiver,
)
from zope.interface import implementer

from homeserver.concurrency.thread_pools import PoolFull, ThreadPool
from homeserver.outbound.public_addresses import is_in_networks, is_public_address

# A name server that does not respond blocks a thread for half a minute or more, and threads are
# cheap.
MAX_LOOKUPS = 300
MAX_WAITING = 2_000
MAX_ADDRESSES = 10  # addresses of one name that are tried
LOOKUP_TIMEOUT_SECONDS = 15.0  # after which a name counts as having no addresses

Addresses = tuple[tuple[type[IPv4Address] | type[IPv6Address], str], ...]


class AddressRefused(ConnectError):
    """The address is not public, or denied."""

    def __init__(self, address: str, reason: str) -> None:
        super().__init__(string=f"{address} is {reason}")  # type: ignore[no-untyped-call]


@implementer(IHostResolution)
class _HostResolution:
    def __init__(self, name: str) -> None:
        self.name = name

    def cancel(self) -> None:
        """Do nothing: a look-up cannot be ended, and cancelling a connection only ends the wait."""


@implementer(IHostnameResolver)
class HostResolver:
    """A resolver that looks up hosts in threads of `pool`.

    Simultaneous requests for a name share one look-up, so no name takes more than one thread. A
    caller waits for `LOOKUP_TIMEOUT_SECONDS` at most, though the look-up itself cannot be ended.
    """

    def __init__(self, clock: IReactorTime, pool: ThreadPool) -> None:
        self._clock = clock
        self._pool = pool
        self._waiting: dict[str, list[tuple[IResolutionReceiver, int]]] = {}
        self._hanging: set[str] = set()

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        """Look up a host (for Twisted). A name without addresses may exist or not."""
        resolution = _HostResolution(hostName)
        resolutionReceiver.resolutionBegan(resolution)
        if isIPAddress(hostName):
            _pass_on(resolutionReceiver, portNumber, ((IPv4Address, hostName),))
        elif isIPv6Address(hostName):
            _pass_on(resolutionReceiver, portNumber, ((IPv6Address, hostName),))
        elif hostName in self._hanging:
            _pass_on(resolutionReceiver, portNumber, ())
        elif hostName in self._waiting:
            self._waiting[hostName].append((resolutionReceiver, portNumber))
        else:
            self._waiting[hostName] = [(resolutionReceiver, portNumber)]
            self._look_up(hostName)
        return resolution

    def _look_up(self, name: str) -> None:
        try:
            looking = self._pool.run(_addresses_of, name)
        except PoolFull:
            self._found((), name)
        else:
            alarm = self._clock.callLater(LOOKUP_TIMEOUT_SECONDS, self._give_up, name)
            looking.addErrback(lambda _: ()).addCallback(self._ended, name, alarm)

    def _give_up(self, name: str) -> None:
        self._hanging.add(name)
        self._found((), name)

    def _ended(self, addresses: Addresses, name: str, alarm: IDelayedCall) -> None:
        if name in self._hanging:
            self._hanging.remove(name)
        else:
            alarm.cancel()
            self._found(addresses, name)

    def _found(self, addresses: Addresses, name: str) -> None:
        for receiver, port in self._waiting.pop(name):
            _pass_on(receiver, port, addresses)


def _addresses_of(name: str) -> Addresses:
    """The addresses of a name, in the order in which the system prefers them; blocks."""
    kinds: dict[int, type[IPv4Address | IPv6Address]] = {
        socket.AF_INET: IPv4Address,
        socket.AF_INET6: IPv6Address,
    }
    try:
        found = socket.getaddrinfo(name, None, socket.AF_UNSPEC, socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return ()
    # An IPv6 address may include a scope.
    hosts = [(kinds[family], str(address[0])) for family, *_, address in found if family in kinds]
    return tuple(dict.fromkeys(hosts))[:MAX_ADDRESSES]


def _pass_on(receiver: IResolutionReceiver, port: int, addresses: Addresses) -> None:
    for kind, host in addresses:
        receiver.addressResolved(kind("TCP", host, port))
    receiver.resolutionComplete()


@implementer(IReactorPluggableNameResolver)
class Network:
    """A reactor, as far as endpoints use it, that resolves names in separate threads.

    It connects to no address in the `denied` networks.
    """

    def __init__(
        self,
        reactor: Any,
        names: HostResolver,
        denied: Sequence[IPv4Network | IPv6Network] = (),
    ) -> None:
        self._reactor = reactor
        self._denied = denied
        self.nameResolver = names
        self.seconds = reactor.seconds
        self.callLater = reactor.callLater

    def installNameResolver(self, resolver: Any) -> Any:
        """Use another resolver (for Twisted); returns the previous one."""
        self.nameResolver, before = resolver, self.nameResolver
        return before

    def connectTCP(self, host: str, port: int, *args: Any, **named: Any) -> IConnector:
        """Connect to an address. Raises `AddressRefused`."""
        if self._denied and is_in_networks(host, self._denied):
            raise AddressRefused(host, "denied")
        connector: IConnector = self._reactor.connectTCP(host, port, *args, **named)
        return connector


class PublicOnlyNetwork(Network):
    """A network that connects to public addresses only."""

    def connectTCP(self, host: str, port: int, *args: Any, **named: Any) -> IConnector:
        """Connect to an address. Raises `AddressRefused`."""
        if not is_public_address(host):
            raise AddressRefused(host, "not a public address")
        return super().connectTCP(host, port, *args, **named)


def open_network(
    reactor: Any,
    purpose: str,
    *,
    allow_private_addresses: bool,
    denied: Sequence[IPv4Network | IPv6Network] = (),
) -> Network:
    """A network for one purpose, whose look-ups do not delay those of others."""
    pool = ThreadPool(reactor, f"names for {purpose}", size=MAX_LOOKUPS, max_waiting=MAX_WAITING)
    kind = Network if allow_private_addresses else PublicOnlyNetwork
    return kind(reactor, HostResolver(reactor, pool), denied)

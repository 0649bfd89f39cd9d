"""The network of outgoing connections: names, addresses, and separate look-ups."""

import socket
from threading import Event
from typing import Any

import pytest
from twisted.internet import reactor
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import IResolutionReceiver
from twisted.internet.task import Clock
from zope.interface import implementer

from homeserver.concurrency.thread_pools import ThreadPool
from homeserver.outbound.networks import AddressRefused, HostResolver, open_network
from tests.support.reactor import pause, run


@implementer(IResolutionReceiver)
class Receiver:
    def __init__(self) -> None:
        self.addresses: list[Any] = []
        self.done: Deferred[None] = Deferred()

    def resolutionBegan(self, resolutionInProgress: Any) -> None:
        self.name = resolutionInProgress.name

    def addressResolved(self, address: Any) -> None:
        self.addresses.append(address)

    def resolutionComplete(self) -> None:
        self.done.callback(None)


def resolver(size: int = 2, waiting: int = 1, clock: Any = reactor) -> HostResolver:
    return HostResolver(clock, ThreadPool(reactor, "test", size=size, max_waiting=waiting))


def look_up(names: HostResolver, name: str, port: int = 80) -> Receiver:
    receiver = Receiver()
    names.resolveHostName(receiver, name, port)
    return receiver


def test_an_address_is_not_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server named by its address needs no name server, and no thread."""
    monkeypatch.setattr(socket, "getaddrinfo", None)

    assert look_up(resolver(), "192.0.2.1").addresses == [IPv4Address("TCP", "192.0.2.1", 80)]
    assert look_up(resolver(), "2001:db8::1").addresses == [IPv6Address("TCP", "2001:db8::1", 80)]


def test_a_name_is_resolved_as_the_system_does() -> None:
    """Entries of /etc/hosts count."""

    async def story() -> None:
        found = look_up(resolver(), "localhost", 8448)
        await found.done
        assert IPv4Address("TCP", "127.0.0.1", 8448) in found.addresses

    run(story())


def test_a_name_that_hangs_takes_one_thread_and_delays_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However many callers look it up; beyond the limit they get an error at once."""
    gate, real = Event(), socket.getaddrinfo

    def slow(host: str, *args: Any) -> Any:
        if host.endswith(".slow.example"):
            gate.wait(30)
            raise OSError("no answer")
        return real(host, *args)

    monkeypatch.setattr(socket, "getaddrinfo", slow)

    async def story() -> None:
        names = resolver(size=2, waiting=1)
        stuck = [look_up(names, "one.slow.example") for _ in range(50)]
        quick = look_up(names, "localhost")
        await quick.done
        assert quick.addresses

        stuck += [look_up(names, f"{each}.slow.example") for each in ("two", "three")]
        refused = look_up(names, "four.slow.example")
        assert refused.done.called
        gate.set()
        for each in stuck:
            await each.done
            assert each.addresses == []

    run(story())


def test_callers_do_not_wait_for_a_name_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller can continue with another server after a while, and later callers at once."""
    gate = Event()

    def slow(host: str, *args: Any) -> Any:
        gate.wait(30)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", slow)

    async def story() -> None:
        clock = Clock()
        names = resolver(clock=clock)
        first = look_up(names, "one.slow.example")
        clock.advance(14)
        assert not first.done.called
        clock.advance(1)
        assert first.done.called
        assert look_up(names, "one.slow.example").done.called

        gate.set()
        while (again := look_up(names, "one.slow.example")).done.called:
            await pause(0.01)
        await again.done
        assert again.addresses
        assert clock.getDelayedCalls() == []

    run(story())


def test_private_addresses_are_refused() -> None:
    """No client can use this server to reach services that only it can reach."""
    network = open_network(reactor, "test", allow_private_addresses=False)

    with pytest.raises(AddressRefused):
        network.connectTCP("10.0.0.1", 80, None)


def test_a_name_without_addresses_is_an_error_of_the_connection() -> None:
    """The caller gets an error, and need not wait for a timeout."""
    from twisted.internet.endpoints import HostnameEndpoint
    from twisted.internet.protocol import Factory, Protocol

    async def story() -> None:
        network = open_network(reactor, "test", allow_private_addresses=True)
        endpoint = HostnameEndpoint(network, "there.is.no.such.host.invalid", 80)
        with pytest.raises(DNSLookupError):
            await endpoint.connect(Factory.forProtocol(Protocol))

    run(story())

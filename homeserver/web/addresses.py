"""Client addresses: the sender of a request behind trusted reverse proxies.

Any sender can set `X-Forwarded-For`. It is trusted only as far as proxies in the configured
networks wrote it: read from the right, the first address that is not one of them is the client's. A
peer on a Unix socket is a proxy of this machine and is always trusted.
"""

import ipaddress
import os
from collections.abc import Iterable
from functools import lru_cache

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def display_address(address: IAddress) -> str:
    """An address in readable form: `127.0.0.1:8008`, `[::1]:8008`, or the path of a socket."""
    if isinstance(address, IPv4Address | IPv6Address):
        return display_host_and_port(address.host, address.port)
    name = getattr(address, "name", None)
    return os.fsdecode(name) if name else "a Unix socket"


def display_host_and_port(host: str, port: int | None) -> str:
    """A host, by name or address, with a port: `[::1]:8008` for an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class TrustedProxies:
    """The networks of reverse proxies, such as `127.0.0.1` or `10.0.0.0/8`."""

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = [ipaddress.ip_network(network, strict=False) for network in networks]

    def trusts(self, peer: str) -> bool:
        """Whether this address, or "" for a Unix socket, may set the client's address."""
        if not peer:
            return True
        address = _parse(peer)
        return address is not None and any(address in network for network in self._networks)

    def client(self, peer: str, forwarded_for: list[str]) -> str:
        """The client's address, given a trusted peer and its `X-Forwarded-For` headers in order."""
        client = peer
        entries = [entry.strip() for entry in ",".join(forwarded_for).split(",")]
        for entry in reversed(entries):
            address = _parse(entry)
            if address is None:
                break
            client = str(address)
            if not self.trusts(client):
                break
        return client


def peer_text(peer: IAddress) -> str:
    """The IP address of a connection's peer as text, or "" for a Unix socket."""
    if isinstance(peer, IPv4Address | IPv6Address):
        address = _parse(peer.host)
        return peer.host if address is None else str(address)
    return ""


@lru_cache(maxsize=10_000)
def network_of(address: str) -> str:
    """The party of an address: itself, or its 64-bit network, all of which one host may have."""
    parsed = _parse(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((parsed, 64), strict=False))
    return address


def _parse(text: str) -> Address | None:
    text = text.removeprefix("[").partition("]")[0]
    if text.count(":") == 1:
        text = text.partition(":")[0]  # some proxies add the port
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    # A socket that listens on `::` sees IPv4 clients as mapped addresses.
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address

"""Public addresses: the IP addresses of the internet, as opposed to those of private networks.

If an IPv6 address contains an IPv4 one (mapped, 6to4, Teredo, NAT64), both must be public: the
packet goes to the inner one.

https://www.iana.org/assignments/iana-ipv4-special-registry/
https://www.iana.org/assignments/iana-ipv6-special-registry/
"""

import ipaddress
from collections.abc import Iterable

# In addition to Python's `is_global`, which older versions read from older registries: assignments
# of protocols, where a cloud has its metadata, benchmarks, the old site-local range, networks that
# only translate, documentation, and segment routing.
NOT_PUBLIC = tuple(
    ipaddress.ip_network(network)
    for network in (
        *("192.0.0.0/24", "198.18.0.0/15"),
        *("fec0::/10", "64:ff9b:1::/48", "3fff::/20", "5f00::/16"),
    )
)
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def is_public_address(text: str) -> bool:
    """Whether an address is on the public internet; false for a text that is not an address."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        inner = _inside(address)
        if inner is not None:
            return _is_public(inner)
    return _is_public(address)


def is_in_networks(
    text: str, networks: Iterable[ipaddress.IPv4Network | ipaddress.IPv6Network]
) -> bool:
    """Whether an address, or the one that it contains, is in one of some networks."""
    address = ipaddress.ip_address(text)
    inner = _inside(address) if isinstance(address, ipaddress.IPv6Address) else None
    return any(
        address in network or (inner is not None and inner in network) for network in networks
    )


def _is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    if not address.is_global or address.is_multicast or address.is_reserved:
        return False
    return not any(address in network for network in NOT_PUBLIC)


def _inside(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 address contains."""
    if address in NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo and teredo[1])

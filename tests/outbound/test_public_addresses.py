"""Addresses on the internet, and those that are not."""

from ipaddress import ip_network

import pytest

from homeserver.outbound.public_addresses import is_in_networks, is_public_address


@pytest.mark.parametrize(
    "address",
    [
        "1.1.1.1",
        "93.184.216.34",
        "2606:2800:220:1:248:1893:25c8:1946",
        "::ffff:1.1.1.1",
        "64:ff9b::101:101",
    ],
)
def test_addresses_of_the_internet_are_public(address: str) -> None:
    """Push gateways and web pages are there."""
    assert is_public_address(address)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "10.1.2.3",
        "100.64.0.1",
        "127.0.0.1",
        "127.8.9.10",
        "169.254.169.254",
        "172.16.0.1",
        "192.0.0.1",
        "192.0.2.1",
        "192.168.1.1",
        "192.0.0.192",
        "198.18.0.1",
        "3fff::1",
        "5f00::1",
        "224.0.0.1",
        "239.255.255.250",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fc00::1",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "ff02::1",
        "2001:db8::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::a00:1",
        "2002:7f00:1::",
        "2001:0:7f00:1::f5ff:fffe",
        "::127.0.0.1",
    ],
)
def test_addresses_of_this_network_are_not(address: str) -> None:
    """Services that only this machine can reach stay out of reach of clients, in every notation."""
    assert not is_public_address(address)


@pytest.mark.parametrize("text", ["", "localhost", "127.1", "0x7f.1", "1.1.1.1:80", "[::1]"])
def test_what_is_no_address_is_not_public(text: str) -> None:
    """A text that cannot be checked is refused."""
    assert not is_public_address(text)


@pytest.mark.parametrize(
    ("address", "is_inside"),
    [
        ("198.51.100.7", True),
        ("198.51.101.7", False),
        ("::ffff:198.51.100.7", True),
        ("64:ff9b::c633:6407", True),
        ("2001:db8::1", True),
        ("2001:db9::1", False),
    ],
)
def test_networks_contain_addresses(address: str, is_inside: bool) -> None:
    """A network is denied by whatever address of it."""
    networks = [ip_network("198.51.100.0/24"), ip_network("2001:db8::/32")]

    assert is_in_networks(address, networks) == is_inside

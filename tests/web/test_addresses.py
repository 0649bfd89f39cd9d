"""Client addresses: which proxies are trusted."""

import pytest
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress

from homeserver.web.addresses import TrustedProxies, peer_text

PROXIES = TrustedProxies(["127.0.0.1", "10.0.0.0/8", "2001:db8::/32"])


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        (["192.0.2.1"], "192.0.2.1"),
        (["6.6.6.6, 192.0.2.1"], "192.0.2.1"),
        (["6.6.6.6", "192.0.2.1, 10.0.0.9"], "192.0.2.1"),
        (["10.0.0.8, 10.0.0.9"], "10.0.0.8"),
        (["192.0.2.1:4711"], "192.0.2.1"),
        (["[2001:db9::1]:4711"], "2001:db9::1"),
        (["::ffff:192.0.2.1"], "192.0.2.1"),
        (["192.0.2.1, unknown"], "127.0.0.1"),
        (["192.0.2.1, unknown, 10.0.0.9"], "10.0.0.9"),
        ([""], "127.0.0.1"),
    ],
)
def test_client_is_the_first_untrusted_address_from_the_right(
    forwarded: list[str], client: str
) -> None:
    """Entries further left were written by the untrusted sender."""
    assert PROXIES.client("127.0.0.1", forwarded) == client


def test_unix_socket_is_trusted_and_other_peers_are_not() -> None:
    """Only a process of this machine that may open the socket can connect to it."""
    assert PROXIES.trusts("")
    assert PROXIES.trusts("2001:db8::5")
    assert not PROXIES.trusts("192.0.2.1")
    assert PROXIES.client("", ["192.0.2.1"]) == "192.0.2.1"


def test_peers_have_one_spelling() -> None:
    """Limits count by address, however the socket was opened."""
    assert peer_text(IPv4Address("TCP", "192.0.2.1", 1)) == "192.0.2.1"
    assert peer_text(IPv6Address("TCP", "::ffff:192.0.2.1", 1)) == "192.0.2.1"
    assert peer_text(UNIXAddress("/run/x.sock")) == ""

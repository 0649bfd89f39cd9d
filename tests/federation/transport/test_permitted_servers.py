"""The lists of servers that this one talks with."""

import pytest

from federation.transport.permitted_servers import PermittedServers


@pytest.mark.parametrize(
    ("allow", "deny", "name", "permitted"),
    [
        ((), (), "example.org", True),
        ((), ("example.org",), "example.org", False),
        ((), ("example.org",), "EXAMPLE.org:8448", False),
        ((), ("example.org",), "sub.example.org", True),
        ((), ("*.example.org",), "sub.example.org", False),
        ((), ("*.example.org",), "example.org", True),
        ((), ("*example.org",), "badexample.org", False),
        ((), ("exampl?.org",), "example.org", False),
        ((), ("e.ample.org",), "example.org", True),
        ((), ("127.*",), "127.0.0.1:80", False),
        ((), ("*",), "example.org", False),
        (("example.org",), (), "example.org", True),
        (("example.org",), (), "example.com", False),
        (("*.org",), ("bad.org",), "good.org", True),
        (("*.org",), ("bad.org",), "bad.org", False),
        ((), (), "not a name", False),
        (("*",), (), "example.org:http", False),
        ((), (), "", False),
    ],
)
def test_allow_and_deny(allow, deny, name, permitted) -> None:
    """Operators can block some servers, or all but some."""
    assert PermittedServers(allow, deny).permits(name) is permitted

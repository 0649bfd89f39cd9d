"""ACLs that a client wants to set: their form, and the servers that they deny."""

import pytest

from homeserver.protocol.server_acl import fault_of_acl, is_server_allowed, keeps_itself_out


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ({}, "allow"),
        ({"deny": []}, "allow"),
        ({"allow": "*"}, "allow"),
        ({"allow": ["*", None]}, "allow"),
        ({"allow": ["*"], "deny": {}}, "deny"),
    ],
)
def test_what_is_wrong_with_a_list_is_named(content: dict[str, object], word: str) -> None:
    """The client finds the wrong field."""
    fault = fault_of_acl(content)

    assert fault is not None
    assert fault.startswith(word)


def test_a_list_of_the_right_form_has_no_fault() -> None:
    """Even an empty `allow` list is valid: its effect is not part of this check."""
    assert fault_of_acl({"allow": []}) is None
    assert fault_of_acl({"allow": ["*"], "deny": ["x"], "allow_ip_literals": False}) is None
    assert fault_of_acl({"allow": ["*"], "allow_ip_literals": "false"}) is None


@pytest.mark.parametrize("name", ["example.org", "example.org:8448", "10.0.0.1", "[fd00::1]:8448"])
def test_a_list_that_denies_its_own_server_is_recognised(name: str) -> None:
    """In whichever way the list denies it."""
    assert keeps_itself_out(name, {"allow": []})
    assert keeps_itself_out(name, {"allow": ["*"], "deny": ["*"]})
    assert not keeps_itself_out(name, {"allow": ["*"]})


@pytest.mark.parametrize("name", ["127.0.0.1:8448", "127.1.2.3", "[::1]:8448"])
def test_servers_at_a_loopback_address_keep_each_other_out(name: str) -> None:
    """They differ only by their ports, which ACLs ignore."""
    rules = {"allow": ["*"], "allow_ip_literals": False}

    assert not is_server_allowed(name, rules)
    assert not keeps_itself_out(name, rules)

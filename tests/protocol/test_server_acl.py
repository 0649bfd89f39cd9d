"""Access lists that a client wants to set: their form, and whom they keep out."""

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
    """Whoever wrote it finds the field."""
    fault = fault_of_acl(content)

    assert fault is not None
    assert fault.startswith(word)


def test_a_list_of_the_right_form_has_no_fault() -> None:
    """An empty list of those allowed is one, too: it is for others to say what it does."""
    assert fault_of_acl({"allow": []}) is None
    assert fault_of_acl({"allow": ["*"], "deny": ["x"], "allow_ip_literals": False}) is None
    assert fault_of_acl({"allow": ["*"], "allow_ip_literals": "false"}) is None


@pytest.mark.parametrize("name", ["example.org", "example.org:8448", "10.0.0.1", "[fd00::1]:8448"])
def test_a_server_that_keeps_itself_out_is_told(name: str) -> None:
    """By whichever part of the list it is out."""
    assert keeps_itself_out(name, {"allow": []})
    assert keeps_itself_out(name, {"allow": ["*"], "deny": ["*"]})
    assert not keeps_itself_out(name, {"allow": ["*"]})


@pytest.mark.parametrize("name", ["127.0.0.1:8448", "127.1.2.3", "[::1]:8448"])
def test_servers_at_a_loopback_address_keep_each_other_out(name: str) -> None:
    """They differ by their ports alone, which no list knows."""
    rules = {"allow": ["*"], "allow_ip_literals": False}

    assert not is_server_allowed(name, rules)
    assert not keeps_itself_out(name, rules)

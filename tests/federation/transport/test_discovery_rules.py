"""The order in which a server name is resolved, by the specification's numbered steps."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.transport.discovery_rules import (
    Address,
    AskService,
    AskWellKnown,
    NoAddress,
    Question,
    Service,
    Target,
    in_order,
    locate,
    parse_delegation,
)

FED = "_matrix-fed._tcp"
OLD = "_matrix._tcp"


def resolve(
    server_name: str,
    *,
    delegated: str | None = None,
    services: dict[str, list[Service]] | None = None,
) -> tuple[Address, list[str]]:
    """The address of a server in a world with this delegation and these SRV records, and the names
    that were looked up on the way.
    """
    steps = locate(server_name)
    asked: list[str] = []
    answer: Any = None
    while True:
        try:
            question: Question = steps.send(answer)
        except StopIteration as end:
            return end.value, asked
        if isinstance(question, AskWellKnown):
            asked.append(f"well-known {question.host}")
            answer = delegated
        else:
            assert isinstance(question, AskService)
            asked.append(question.name)
            answer = (services or {}).get(question.name)


def at(host: str, port: int, host_header: str, certificate_name: str) -> Address:
    """An address with one target."""
    return Address((Target(host, port),), host_header, certificate_name)


WELL_KNOWN = ["well-known example.org"]
SRV = [Service(0, 0, "srv.example", 9000)]


@pytest.mark.parametrize(
    ("name", "delegated", "services", "address", "asked"),
    [
        # 1: IP literals, with a port and without.
        ("1.2.3.4", None, {}, at("1.2.3.4", 8448, "1.2.3.4", "1.2.3.4"), []),
        ("1.2.3.4:80", None, {}, at("1.2.3.4", 80, "1.2.3.4:80", "1.2.3.4"), []),
        ("[2001:db8::1]", None, {}, at("2001:db8::1", 8448, "[2001:db8::1]", "2001:db8::1"), []),
        ("[::1]:80", None, {}, at("::1", 80, "[::1]:80", "::1"), []),
        # 2: an explicit port.
        ("example.org:80", "x", {}, at("example.org", 80, "example.org:80", "example.org"), []),
        # 3.1: a delegation to an IP literal.
        ("example.org", "5.6.7.8", {}, at("5.6.7.8", 8448, "5.6.7.8", "5.6.7.8"), WELL_KNOWN),
        ("example.org", "5.6.7.8:1", {}, at("5.6.7.8", 1, "5.6.7.8:1", "5.6.7.8"), WELL_KNOWN),
        ("example.org", "[::2]:1", {}, at("::2", 1, "[::2]:1", "::2"), WELL_KNOWN),
        # 3.2: to a name with a port.
        (
            "example.org",
            "d.example:443",
            {f"{FED}.d.example": SRV},
            at("d.example", 443, "d.example:443", "d.example"),
            WELL_KNOWN,
        ),
        # 3.3: to a name with an SRV record.
        (
            "example.org",
            "d.example",
            {f"{FED}.d.example": SRV, f"{OLD}.d.example": []},
            at("srv.example", 9000, "d.example", "d.example"),
            [*WELL_KNOWN, f"{FED}.d.example"],
        ),
        # 3.4: to a name with an SRV record of the deprecated service.
        (
            "example.org",
            "d.example",
            {f"{OLD}.d.example": SRV, f"{FED}.example.org": SRV},
            at("srv.example", 9000, "d.example", "d.example"),
            [*WELL_KNOWN, f"{FED}.d.example", f"{OLD}.d.example"],
        ),
        # 3.5: to a name alone.
        (
            "example.org",
            "d.example",
            {},
            at("d.example", 8448, "d.example", "d.example"),
            [*WELL_KNOWN, f"{FED}.d.example", f"{OLD}.d.example"],
        ),
        # 4: an SRV record of the name itself.
        (
            "example.org",
            None,
            {f"{FED}.example.org": SRV, f"{OLD}.example.org": []},
            at("srv.example", 9000, "example.org", "example.org"),
            [*WELL_KNOWN, f"{FED}.example.org"],
        ),
        # 5: the deprecated service.
        (
            "example.org",
            None,
            {f"{OLD}.example.org": SRV},
            at("srv.example", 9000, "example.org", "example.org"),
            [*WELL_KNOWN, f"{FED}.example.org", f"{OLD}.example.org"],
        ),
        # 6: nothing but the name.
        (
            "example.org",
            None,
            {},
            at("example.org", 8448, "example.org", "example.org"),
            [*WELL_KNOWN, f"{FED}.example.org", f"{OLD}.example.org"],
        ),
    ],
)
def test_each_step_of_the_specification(name, delegated, services, address, asked) -> None:
    """Two servers that know only each other's names find each other."""
    assert resolve(name, delegated=delegated, services=services) == (address, asked)


def test_the_targets_of_a_service_are_tried_in_their_order() -> None:
    """A fallback server gets requests only when the main one fails."""
    records = [Service(1, 0, "first.example", 1), Service(2, 0, "second.example", 2)]

    address, _ = resolve("example.org", services={f"{FED}.example.org": records})

    assert address.targets == (Target("first.example", 1), Target("second.example", 2))


def test_a_service_can_be_declared_not_to_exist() -> None:
    """RFC 2782: a target of "." ends the search, in place of a guess at port 8448."""
    with pytest.raises(NoAddress, match="offers no federation"):
        resolve("example.org", services={f"{FED}.example.org": [Service(0, 0, ".", 0)]})


@pytest.mark.parametrize(
    "name", ["", "a b", "example.org:http", "[::g]", "1.2.3.4:0", "example.org:70000", "a/b", "é"]
)
def test_an_invalid_server_name_is_not_resolved(name) -> None:
    """No look-up happens for it."""
    with pytest.raises(NoAddress):
        resolve(name)


@pytest.mark.parametrize(
    ("body", "delegated"),
    [
        (b'{"m.server": "d.example:443"}', "d.example:443"),
        (b'{"m.server": "[::1]", "more": 1}', "[::1]"),
        (b'{"m.server": "d.example:0"}', None),
        (b'{"m.server": "d.example:65536"}', None),
        (b'{"m.server": "https://d.example"}', None),
        (b'{"m.server": ""}', None),
        (b'{"m.server": null}', None),
        (b'{"m.server": ["d.example"]}', None),
        (b'["d.example"]', None),
        (b"{}", None),
        (b"<html>", None),
        (b"", None),
        (b'{"m.server": "\xff"}', None),
        (b"[" * 100_000, None),
    ],
)
def test_a_delegation_is_a_server_name_in_json(body, delegated) -> None:
    """An invalid file counts as no delegation, and never as an error."""
    assert parse_delegation(body) == delegated


@given(
    st.lists(
        st.builds(
            Service, st.integers(0, 3), st.integers(0, 9), st.sampled_from("abc"), st.integers(1, 9)
        ),
        max_size=6,
    ),
    st.lists(st.floats(0, 1, exclude_max=True), min_size=6, max_size=6),
)
def test_services_are_ordered_by_priority_and_none_is_lost(records, chances) -> None:
    """Load is shared among equals only."""
    ordered = in_order(records, iter(chances).__next__)

    assert sorted(map(repr, ordered)) == sorted(map(repr, records))
    assert [one.priority for one in ordered] == sorted(one.priority for one in records)


@pytest.mark.parametrize(("chance", "first"), [(0.1, "light"), (0.5, "heavy"), (0.99, "heavy")])
def test_among_equals_the_weight_decides(chance, first) -> None:
    """Three quarters of the load go to the server with three times the weight."""
    records = [Service(1, 30, "heavy", 1), Service(1, 10, "light", 1)]

    assert in_order(records, lambda: chance)[0].host == first

"""The order in which a server name is resolved, as rules without a network.

`locate` is a generator that asks questions, a `.well-known` file or an SRV record, and is sent the
answers; it ends with the address. Its caller does the waiting (`discovery.py`), so that the order
can be tested by itself, and shown step by step by `homeserver doctor`.

Spec: https://spec.matrix.org/v1.19/server-server-api/#resolving-server-names
"""

from collections.abc import Callable, Generator, Iterable, Sequence
from typing import Any

import msgspec

from homeserver.protocol.identifiers import InvalidIdentifier, parse_server_name

DEFAULT_PORT = 8448
SERVICES = ("_matrix-fed._tcp", "_matrix._tcp")  # the second is deprecated, and still in use


class NoAddress(Exception):
    """The name leads to no address; the message says why."""


class Target(msgspec.Struct, frozen=True):
    """A host, or an IP address without brackets, and a port to connect to."""

    host: str
    port: int


class Address(msgspec.Struct, frozen=True):
    """The address of a server: targets in the order in which to try them, and names for a request.

    `certificate_name` is the host name, or the IP address, that the certificate must be valid for.
    """

    targets: tuple[Target, ...]
    host_header: str
    certificate_name: str


class AskWellKnown(msgspec.Struct, frozen=True):
    """A question for the server name in `https://HOST/.well-known/matrix/server`: `str | None`."""

    host: str


class AskService(msgspec.Struct, frozen=True):
    """A question for the SRV records of a name.

    The answer is a list of `Service` in the order to try, or `None` where there is no such name.
    """

    name: str


class Service(msgspec.Struct, frozen=True):
    """An SRV record; a `host` of "." says that the service is not offered."""

    priority: int
    weight: int
    host: str
    port: int


Question = AskWellKnown | AskService


def locate(server_name: str) -> Generator[Question, Any, Address]:
    """Resolve a server name, delegation included. Raises `NoAddress`."""
    try:
        host = parse_server_name(server_name).host
    except InvalidIdentifier:
        raise NoAddress(f"{server_name!r} is not a server name") from None
    # Steps 1 and 2: an address, or a port.
    direct = _directly(server_name)
    if direct is not None:
        return direct
    # Step 3: a delegation, to an address or a port (3.1, 3.2), or to a name (3.3 to 3.5).
    delegated: str | None = yield AskWellKnown(host)
    if delegated is not None:
        direct = _directly(delegated)
        if direct is not None:
            return direct
        host = parse_server_name(delegated).host
    # Steps 4 to 6, and 3.3 to 3.5 alike: services, then the default port.
    for service in SERVICES:
        records: Sequence[Service] | None = yield AskService(f"{service}.{host}")
        if records is not None:
            return _by_services(host, records)
    return Address((Target(host, DEFAULT_PORT),), host, host)


def parse_delegation(body: bytes) -> str | None:
    """The server name in the body of a `.well-known` file; `None` if it is not one.

    Spec: https://spec.matrix.org/v1.19/server-server-api/#getwell-knownmatrixserver
    """
    try:
        content = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    delegated = content.get("m.server") if isinstance(content, dict) else None
    if not isinstance(delegated, str):
        return None
    try:
        port = parse_server_name(delegated).port
    except InvalidIdentifier:
        return None
    return delegated if port is None or 0 < port < 65_536 else None


def in_order(records: Iterable[Service], random: Callable[[], float]) -> list[Service]:
    """SRV records in the order to try: by priority, and by weighted chance among equals.

    `random` gives numbers from 0 up to 1. See RFC 2782, "Weight".
    """
    ordered: list[Service] = []
    left = sorted(records, key=lambda record: (record.priority, record.weight))
    while left:
        equals = [record for record in left if record.priority == left[0].priority]
        mark = random() * sum(record.weight for record in equals)
        for chosen in equals:
            mark -= chosen.weight
            if mark <= 0:
                break
        left.remove(chosen)
        ordered.append(chosen)
    return ordered


def _directly(server_name: str) -> Address | None:
    """The address of a name that has a port or is an IP address, so that it needs no discovery."""
    name = parse_server_name(server_name)
    if name.port is None and not name.is_address:
        return None
    port = DEFAULT_PORT if name.port is None else name.port
    if not 0 < port < 65_536:
        raise NoAddress(f"there is no port {port}")
    return Address((Target(name.host, port),), server_name, name.host)


def _by_services(host: str, records: Sequence[Service]) -> Address:
    targets = tuple(Target(record.host, record.port) for record in records if record.host != ".")
    if not targets:
        raise NoAddress(f"{host} offers no federation, by its SRV record")
    return Address(targets, host, host)

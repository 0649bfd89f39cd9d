"""A check of the TURN server: whether it responds at each of its addresses.

A STUN binding request needs no credentials, and every TURN server responds to it.

https://www.rfc-editor.org/rfc/rfc8489 (STUN), https://www.rfc-editor.org/rfc/rfc7065 (TURN URIs)
"""

import secrets
import socket
import ssl
from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

from homeserver.accounts.credentials.turn_credentials import read_secret
from homeserver.cli.doctor.findings import Finding, ok, problem, warning
from homeserver.config.errors import ConfigError
from homeserver.config.settings import Settings

TIMEOUT = 3.0  # seconds
MAX_RESPONSE = 2_048  # bytes
BINDING_REQUEST = b"\x00\x01\x00\x00\x21\x12\xa4\x42"  # type, length, magic cookie
BINDING_RESPONSES = (b"\x01\x01", b"\x01\x11")  # success, error


def check_turn(settings: Settings) -> Iterator[Finding]:
    """Check the addresses of the TURN server, if there is one."""
    turn = settings.turn
    if turn.shared_secret_file is not None:
        try:
            read_secret(turn.shared_secret_file)
        except ConfigError as error:
            yield problem("turn", str(error), "make the file readable for this server")
    for uri in turn.uris:
        yield _check(uri)


def _check(uri: str) -> Finding:
    try:
        kind, host, port, encrypted = _parts_of(uri)
    except ValueError:
        return problem("turn", f"{uri} is not an address", "correct turn.uris")
    if encrypted and kind is socket.SOCK_DGRAM:
        return ok("turn", f"{uri} is not checked: it has DTLS")
    try:
        responds = _ask(kind, host, port, encrypted=encrypted)
    except ssl.SSLError as error:
        fix = "correct the certificate of the TURN server"
        return problem("turn", f"{uri}: {error.reason or error}", fix)
    except OSError as error:
        # The firewall between may well be open for clients alone.
        fix = "correct turn.uris, or start the TURN server and open its port"
        return warning("turn", f"{uri}: {error}", fix)
    if not responds:
        return problem("turn", f"{uri} is no TURN server", "correct turn.uris")
    return ok("turn", f"{uri} responds")


def _parts_of(uri: str) -> tuple[socket.SocketKind, str, int, bool]:
    """Kind of socket, host, port and TLS of a TURN URI. Raises `ValueError`."""
    scheme, _, rest = uri.partition(":")
    parts = urlsplit(f"//{rest}")
    if not parts.hostname:
        raise ValueError(uri)
    encrypted = scheme == "turns"
    transport = parse_qs(parts.query).get("transport", ["tcp" if encrypted else "udp"])[0]
    kind = socket.SOCK_DGRAM if transport == "udp" else socket.SOCK_STREAM
    return kind, parts.hostname, parts.port or (5349 if encrypted else 3478), encrypted


def _ask(kind: socket.SocketKind, host: str, port: int, *, encrypted: bool) -> bool:
    """Whether a binding request gets its response. Raises `OSError`."""
    family, _, protocol, _, address = socket.getaddrinfo(host, port, type=kind)[0]
    connection = socket.socket(family, kind, protocol)
    with connection:
        connection.settimeout(TIMEOUT)
        connection.connect(address)
        if encrypted:
            context = ssl.create_default_context()
            connection = context.wrap_socket(connection, server_hostname=host)
        with connection:
            transaction = secrets.token_bytes(12)
            connection.sendall(BINDING_REQUEST + transaction)
            response = connection.recv(MAX_RESPONSE)
    return response[:2] in BINDING_RESPONSES and response[8:20] == transaction

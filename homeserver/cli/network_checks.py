"""The network side of an installation, examined: ports, certificates, and what others look up.

Spec: https://spec.matrix.org/v1.19/client-server-api/#well-known-uris
"""

import errno
import http.client
import ipaddress
import json
import socket
import ssl
from collections.abc import Iterator
from typing import Any

from homeserver.cli.findings import Finding, ok, problem, warning
from homeserver.config.listeners import Listener
from homeserver.config.settings import Settings
from homeserver.protocol.identifiers import parse_server_name

TIMEOUT = 5.0  # seconds
MAX_ANSWER = 65_536  # bytes


def check_listeners(settings: Settings) -> Iterator[Finding]:
    """Each address that the server listens at, and the certificates it would show."""
    for listener in settings.listeners:
        if listener.tls is not None:
            yield _check_certificate(listener)
        if listener.path is not None:
            yield _check_unix_socket(listener)
        elif listener.port:
            for address in listener.addresses:
                yield _check_port(address, listener.port, listener)


def _check_certificate(listener: Listener) -> Finding:
    assert listener.tls is not None
    try:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        # A key with a passphrase is refused at the start too; without one given, OpenSSL asks.
        context.load_cert_chain(listener.tls.certificate, listener.tls.private_key, password="")
    except OSError as error:
        return problem(
            "certificate",
            f"{listener.tls.certificate} with {listener.tls.private_key}: {error}",
            "correct the paths, and see that key and certificate belong together",
        )
    return ok("certificate", str(listener.tls.certificate))


def _check_unix_socket(listener: Listener) -> Finding:
    assert listener.path is not None
    if not listener.path.parent.is_dir():
        return problem(
            "listener", f"the folder of {listener.path} does not exist", "make it, or set path"
        )
    return ok("listener", str(listener.path))


def _check_port(address: str, port: int, listener: Listener) -> Finding:
    """Whether a port is free, or one of our kind answers there already."""
    place = f"{address}, port {port}"
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # As the server does: connections that have just ended do not hold the port.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address, port))
    except PermissionError:
        return problem("listener", f"{place} is not for this user", "use a port above 1023")
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return _check_who_answers(address, port, listener, place)
        if family == socket.AF_INET6 and len(listener.addresses) > 1:
            return ok("listener", f"{place}: there is no IPv6 on this machine")
        return problem("listener", f"{place}: {error.strerror}", "correct listeners")
    return ok("listener", f"{place} is free")


def _check_who_answers(address: str, port: int, listener: Listener, place: str) -> Finding:
    wildcard = ipaddress.ip_address(address).is_unspecified
    host = {4: "127.0.0.1", 6: "::1"}[ipaddress.ip_address(address).version]
    try:
        # It is our own machine; whether others trust the certificate is not asked here.
        context = ssl._create_unverified_context() if listener.tls else None  # noqa: S323
        answer = _get(host if wildcard else address, port, "/_matrix/client/versions", context)
    except (OSError, http.client.HTTPException, ValueError):
        answer = None
    if isinstance(answer, dict) and "versions" in answer:
        return ok("listener", f"{place}: a homeserver answers")
    return problem(
        "listener", f"{place} is taken by another program", "stop that, or change listeners"
    )


def check_well_known(settings: Settings) -> Iterator[Finding]:
    """Whether clients that know only the server's name find it."""
    name = parse_server_name(settings.server_name)
    if (
        settings.public_baseurl is None
        or name.port is not None
        or settings.server_name == "localhost"
    ):
        return
    subject = f"https://{settings.server_name}/.well-known/matrix/client"
    mend = "let the web server of that name pass /.well-known/matrix/ on to this server"
    try:
        context = ssl.create_default_context()
        found = _get(settings.server_name, 443, "/.well-known/matrix/client", context)
    except (OSError, http.client.HTTPException, ValueError) as error:
        yield warning(subject, f"cannot be fetched from here: {error}", mend)
        return
    homeserver = found.get("m.homeserver") if isinstance(found, dict) else None
    told = homeserver.get("base_url") if isinstance(homeserver, dict) else None
    if not isinstance(told, str):
        yield warning(subject, "names no homeserver", mend)
    elif told.rstrip("/") != settings.public_baseurl.rstrip("/"):
        yield warning(subject, f"sends clients to {told}, not to {settings.public_baseurl}", mend)
    else:
        yield ok(subject, "names this server")


def _get(host: str, port: int, path: str, context: ssl.SSLContext | None) -> Any:
    """The JSON at an address. Raises `OSError`, `HTTPException` or `ValueError`."""
    connection = (
        http.client.HTTPSConnection(host, port, timeout=TIMEOUT, context=context)
        if context is not None
        else http.client.HTTPConnection(host, port, timeout=TIMEOUT)
    )
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        if response.status != http.client.OK:
            raise ValueError(f"HTTP status {response.status}")
        return json.loads(response.read(MAX_ANSWER))
    finally:
        connection.close()

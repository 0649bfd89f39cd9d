"""Checks of the network: ports, certificates, and the well-known file for clients.

Spec: https://spec.matrix.org/v1.19/client-server-api/#well-known-uris
"""

import errno
import html
import http.client
import ipaddress
import json
import re
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from homeserver.certificates.challenges import PROBE_PATH
from homeserver.cli.doctor.findings import Finding, ok, problem, warning
from homeserver.cli.doctor.port_holder import find_port_holders
from homeserver.config.sections.listeners import Listener
from homeserver.config.settings import Settings
from homeserver.protocol.identifiers import parse_server_name
from homeserver.web.addresses import display_host_and_port

TIMEOUT = 5.0  # seconds
MAX_RESPONSE_BYTES = 65_536  # bytes


def check_listeners(settings: Settings) -> Iterator[Finding]:
    """Check each address on which the server listens, and the certificates that it uses."""
    for listener in settings.listeners:
        if listener.tls is not None and not listener.tls.acme:
            yield _check_certificate(listener.tls.certificate, listener.tls.private_key)
        if listener.path is not None:
            yield _check_unix_socket(listener)
        elif listener.port:
            for address in listener.addresses:
                yield _check_port(address, listener.port, listener, settings)


def _check_certificate(certificate: Path | None, private_key: Path | None) -> Finding:
    assert certificate is not None, "the settings were checked"
    try:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        # A key with a passphrase is refused at the start too; without this argument, OpenSSL asks.
        context.load_cert_chain(certificate, private_key, password="")
    except OSError as error:
        return problem(
            "certificate",
            f"{certificate} with {private_key}: {error}",
            "correct the paths, and check that key and certificate belong together",
        )
    return ok("certificate", str(certificate))


def _check_unix_socket(listener: Listener) -> Finding:
    assert listener.path is not None
    if not listener.path.parent.is_dir():
        return problem(
            "listener", f"the directory of {listener.path} does not exist", "create it, or set path"
        )
    return ok("listener", str(listener.path))


def _check_port(address: str, port: int, listener: Listener, settings: Settings) -> Finding:
    """Check that a port is free, or that this server is already using it."""
    place = display_host_and_port(address, port)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # As the server does: connections that have just ended do not block the port.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address, port))
            probe.listen()
    except PermissionError:
        # The service may have it, and be running.
        if _name_of_homeserver(local_host(address), port, listener) == settings.server_name:
            return ok("listener", f"{place}: this server responds")
        return problem(
            "listener",
            f"{place}: this user has no permission",
            "use a port above 1023, or give the server CAP_NET_BIND_SERVICE (docs/systemd.md)",
        )
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return _check_responder(address, port, listener, settings)
        if family == socket.AF_INET6 and len(listener.addresses) > 1:
            return ok("listener", f"{place}: there is no IPv6 on this machine")
        return problem("listener", f"{place}: {error.strerror}", "correct listeners")
    return ok("listener", f"{place} is free")


def _check_responder(address: str, port: int, listener: Listener, settings: Settings) -> Finding:
    place = display_host_and_port(address, port)
    name = _name_of_homeserver(local_host(address), port, listener)
    if name == settings.server_name:
        return ok("listener", f"{place}: this server responds")
    if name is None and not {"client", "federation", "acme"}.intersection(listener.resources):
        # A listener for health and metrics alone does not reveal its name.
        return warning("listener", f"{place} is in use", "check that this server uses it")
    if name is not None:
        who = f"the homeserver {name}" if name else "a homeserver that does not reveal its name"
    else:
        who = "another program"
    if holders := find_port_holders(port):
        who += ", " + " and ".join(f"process {pid} ({command})" for pid, command in holders)
    return problem("listener", f"{place} is taken by {who}", "stop that, or change listeners")


def local_host(address: str) -> str:
    """An address at which this machine reaches a listener."""
    parsed = ipaddress.ip_address(address)
    return {4: "127.0.0.1", 6: "::1"}[parsed.version] if parsed.is_unspecified else address


def name_behind_challenges(host: str, port: int) -> str | None:
    """The name of the homeserver that serves challenges of ACME; `None` for another program.

    Raises `OSError` or `HTTPException`.
    """
    try:
        return str(json.loads(_get_text(host, port, PROBE_PATH, None))["server_name"])
    except (ValueError, KeyError, TypeError):
        return None


def _name_of_homeserver(host: str, port: int, listener: Listener) -> str | None:
    """The name of the homeserver that responds, "" if it does not say; `None` for anything else."""
    # This is the local machine; whether others trust the certificate is not checked here.
    context = ssl._create_unverified_context() if listener.tls else None  # noqa: S323
    try:
        if "acme" in listener.resources:
            return name_behind_challenges(host, port)
        page = _get_text(host, port, "/", context)
        if found := re.search(r'<meta name="matrix-server" content="([^"]*)">', page):
            return html.unescape(found[1])
        if "federation" in listener.resources:
            response = json.loads(_get_text(host, port, "/_matrix/key/v2/server", context))
            return str(response["server_name"])
        response = json.loads(_get_text(host, port, "/_matrix/client/versions", context))
        return "" if "versions" in response else None
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return None


def check_well_known(settings: Settings) -> Iterator[Finding]:
    """Check that clients that know only the server's name find it."""
    name = parse_server_name(settings.server_name)
    if (
        settings.public_baseurl is None
        or name.port is not None
        or settings.server_name == "localhost"
    ):
        return
    subject = f"https://{settings.server_name}/.well-known/matrix/client"
    fix = "make the web server of that name forward /.well-known/matrix/ to this server"
    try:
        context = ssl.create_default_context()
        found = _get(settings.server_name, 443, "/.well-known/matrix/client", context)
    except (OSError, http.client.HTTPException, ValueError) as error:
        yield warning(subject, f"cannot be fetched from here: {error}", fix)
        return
    homeserver = found.get("m.homeserver") if isinstance(found, dict) else None
    base_url = homeserver.get("base_url") if isinstance(homeserver, dict) else None
    if not isinstance(base_url, str):
        yield warning(subject, "names no homeserver", fix)
    elif base_url.rstrip("/") != settings.public_baseurl.rstrip("/"):
        yield warning(
            subject, f"sends clients to {base_url}, not to {settings.public_baseurl}", fix
        )
    else:
        yield ok(subject, "names this server")


def _get(host: str, port: int, path: str, context: ssl.SSLContext | None) -> Any:
    """The JSON at an address. Raises `OSError`, `HTTPException` or `ValueError`."""
    text = _get_text(host, port, path, context, wanted_status=http.client.OK)
    return json.loads(text)


def _get_text(
    host: str, port: int, path: str, context: ssl.SSLContext | None, *, wanted_status: int = 0
) -> str:
    """Return the body at an address, of any status unless one is wanted.

    Raises `OSError`, `HTTPException` or `ValueError`.
    """
    connection = (
        http.client.HTTPSConnection(host, port, timeout=TIMEOUT, context=context)
        if context is not None
        else http.client.HTTPConnection(host, port, timeout=TIMEOUT)
    )
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        if wanted_status and response.status != wanted_status:
            raise ValueError(f"HTTP status {response.status}")
        return response.read(MAX_RESPONSE_BYTES).decode()
    finally:
        connection.close()

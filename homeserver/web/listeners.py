"""Listeners: the ports and sockets of the configuration, opened at start and closed gracefully.

Each listener serves the route groups that its `resources` name, through a server of its own. A stop
has steps, so that no client loses a response: no new connections; long polls and WebSockets are
notified to end; idle connections close at once, the others after their response; handlers that only
wait are cancelled; and connections that are left after the timeout are aborted.
"""

import errno
import os
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IOpenSSLContextFactory
from twisted.logger import Logger

from homeserver.web.addresses import display_address, display_host_and_port
from homeserver.web.router import Router
from homeserver.web.routes import Route
from homeserver.web.server import HttpServer
from homeserver.web.shutdown import Shutdown
from homeserver.web.tls import Certificate

POLL_SECONDS = 0.02
LINGER_SECONDS = 1.0  # for long polls to end, before they are cancelled
BACKLOG = 1024
ALL_ADDRESSES = ("0.0.0.0", "::")  # noqa: S104  # what operators may write
log = Logger()


class CannotListen(Exception):
    """A port or socket cannot be opened; the message has the address and the reason."""


class TlsSettings(Protocol):
    """The files of a certificate, or the one that the server obtains by ACME."""

    @property
    def acme(self) -> bool: ...

    @property
    def certificate(self) -> Path | None: ...

    @property
    def private_key(self) -> Path | None: ...


class ListenerSettings(Protocol):
    """One listener of the configuration."""

    @property
    def port(self) -> int | None: ...

    @property
    def addresses(self) -> tuple[str, ...]: ...

    @property
    def path(self) -> Path | None: ...

    @property
    def mode(self) -> str: ...

    @property
    def tls(self) -> TlsSettings | None: ...

    @property
    def resources(self) -> Sequence[str]: ...


class Listeners:
    """All listeners of a server.

    `groups` are the routes of each resource; `make_server` makes the server of one listener from
    its router. `acme_certificate` is for the listeners that ask for it. Raises `ValueError` for a
    resource without routes, and `CertificateError`.
    """

    def __init__(
        self,
        reactor: Any,
        settings: Iterable[ListenerSettings],
        groups: Mapping[str, Sequence[Route]],
        make_server: Callable[[Router], HttpServer],
        shutdown: Shutdown,
        acme_certificate: IOpenSSLContextFactory | None = None,
    ) -> None:
        self._reactor = reactor
        self._shutdown = shutdown
        self._ports: list[IListeningPort] = []
        self._certificates: list[Certificate] = []
        self._acme_certificate = acme_certificate
        self._listeners: list[tuple[ListenerSettings, HttpServer]] = []
        self.routes: list[Route] = []  # of all listeners, in the order of the configuration
        for listener in settings:
            for resource in listener.resources:
                if resource not in groups:
                    raise ValueError(f"a listener names the unknown resource {resource}")
            routes = [route for resource in listener.resources for route in groups[resource]]
            self.routes.extend(routes)
            self._listeners.append((listener, make_server(Router(routes))))

    @property
    def addresses(self) -> list[Any]:
        """The server's own addresses, as Twisted's, in the order of the configuration."""
        return [port.getHost() for port in self._ports]

    def start(self) -> None:
        """Open all ports and sockets.

        Raises `CannotListen`, after closing those that were opened.
        """
        try:
            for settings, server in self._listeners:
                self._ports.extend(self._open(settings, server))
        except Exception:
            self._stop_listening()
            raise
        for address in self.addresses:
            log.info("listening on {address}", address=display_address(address))

    def reload_certificates(self) -> None:
        """Read all certificates again, for new connections."""
        for certificate in self._certificates:
            certificate.reload()

    async def stop(self, timeout: float) -> None:
        """Close everything; running requests have `timeout` seconds to end."""
        closed = self._stop_listening()
        self._shutdown.begin()
        servers = [server for _, server in self._listeners]
        for server in servers:
            server.drain()
        if not await self._ended(servers, min(timeout, LINGER_SECONDS)):
            for server in servers:
                server.cancel_waits()
        if not await self._ended(servers, timeout):
            log.warn("aborting connections that did not end within {timeout}s", timeout=timeout)
            for server in servers:
                server.abort()
            await self._ended(servers, LINGER_SECONDS)
        for port_closed in closed:
            await port_closed

    async def _ended(self, servers: list[HttpServer], timeout: float) -> bool:
        """Whether all connections end within `timeout` seconds."""
        end = self._reactor.seconds() + timeout
        while any(server.connections or server.sockets for server in servers):
            if self._reactor.seconds() >= end:
                return False
            pause: Deferred[None] = Deferred()
            self._reactor.callLater(POLL_SECONDS, pause.callback, None)
            await pause
        return True

    def _stop_listening(self) -> list[Deferred[None]]:
        ports, self._ports = self._ports, []
        return [port.stopListening() or succeed(None) for port in ports]

    def _open(self, settings: ListenerSettings, server: HttpServer) -> list[IListeningPort]:
        if settings.path is not None:
            _remove_dead_socket(settings.path)
            path, mode = str(settings.path), int(settings.mode, 8)
            try:
                return [self._reactor.listenUNIX(path, server, BACKLOG, mode)]
            except CannotListenError as error:
                raise CannotListen(f"cannot listen on {path}: {_reason(error)}") from error
        listen = self._listen_function(settings.tls)
        number, ports = settings.port, []
        for address in _without_duplicates(settings.addresses):
            if ":" in address and len(settings.addresses) > 1 and not _has_address(address):
                continue
            try:
                port = listen(number, server, BACKLOG, address)
            except CannotListenError as error:
                place = display_host_and_port(address, number)
                raise CannotListen(f"cannot listen on {place}: {_reason(error)}") from error
            ports.append(port)
            # Port 0 means any free port, but the same one for all addresses.
            host: Any = port.getHost()
            number = host.port
        if not ports:
            names = ", ".join(settings.addresses)
            raise CannotListen(f"cannot listen on {names}: this machine has no such address")
        return ports

    def _listen_function(self, tls: TlsSettings | None) -> Callable[..., IListeningPort]:
        if tls is None:
            listen_tcp: Callable[..., IListeningPort] = self._reactor.listenTCP
            return listen_tcp
        certificate = self._certificate(tls)

        def listen_tls(port: int, server: HttpServer, backlog: int, address: str) -> IListeningPort:
            opened: IListeningPort = self._reactor.listenSSL(
                port, server, certificate, backlog, address
            )
            return opened

        return listen_tls

    def _certificate(self, tls: TlsSettings) -> IOpenSSLContextFactory:
        if tls.acme:
            assert self._acme_certificate is not None, "the settings were checked"
            return self._acme_certificate
        assert tls.certificate is not None, "the settings were checked"
        assert tls.private_key is not None, "the settings were checked"
        certificate = Certificate(tls.certificate, tls.private_key)
        self._certificates.append(certificate)
        return certificate


def _reason(error: CannotListenError) -> str:
    """The reason why a listener cannot be opened, and what to do about it."""
    number = getattr(error.socketError, "errno", None)
    if number == errno.EADDRINUSE:
        return "another program uses it. Stop that, or change `listeners`"
    if number == errno.EACCES:
        return (
            "permission denied. Use a port above 1023 or another path, or let this user have the"
            " port (CAP_NET_BIND_SERVICE)"
        )
    return os.strerror(number) if number else str(error.socketError)


def _remove_dead_socket(path: Path) -> None:
    """Remove a Unix socket that a crash left behind, and on which no process listens."""
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()


def _without_duplicates(addresses: Sequence[str]) -> Sequence[str]:
    """The addresses but `0.0.0.0`, if `::` takes its connections: no port is opened twice."""
    if not {*ALL_ADDRESSES} <= {*addresses} or not _has_address("::"):
        return addresses
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
        if probe.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
            return addresses
    return [address for address in addresses if address != ALL_ADDRESSES[0]]


def _has_address(address: str) -> bool:
    """Whether this machine can listen on an IPv6 address: many containers have no IPv6."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True

"""A real ACME server: what it issues to a real server process, and what it refuses."""

import contextlib
import http.client
import socket
import ssl
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.certificates.pebble import Pebble, needs_pebble, running_pebble
from tests.support.process import ServerProcess, free_port

pytestmark = [pytest.mark.interop, needs_pebble]
NAME = "example.test"
SECONDS = 60.0


class AcmeServer(ServerProcess):
    """A server that obtains its certificate from a Pebble."""

    def __init__(self, pebble: Pebble, **acme: Any) -> None:
        self.pebble = pebble
        directory = Path(tempfile.mkdtemp(prefix="homeserver-acme-"))
        directory.chmod(0o755)
        port = free_port()
        overrides = {
            "server_name": NAME,
            "public_baseurl": f"https://{NAME}:{port}",
            "acme": pebble.settings(**acme),
            "listeners": [
                {
                    "port": port,
                    "bind": "127.0.0.1",
                    "resources": ["client", "federation", "metrics"],
                    "tls": {"acme": True},
                },
                {"port": pebble.http_port, "bind": "127.0.0.1", "resources": ["acme"]},
            ],
        }
        super().__init__(directory, port=port, overrides=overrides)

    def is_responding(self) -> bool:
        """Whether it listens, with any certificate."""
        return _request(self.pebble.http_port).status == 301 if self._listens() else False

    def _listens(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def connect(self, name: str = NAME) -> ssl.SSLSocket:
        """A connection of a client that trusts Pebble and knows the server by a name."""
        plain = socket.create_connection(("127.0.0.1", self.port), 10)
        try:
            return self.pebble.client_context().wrap_socket(plain, server_hostname=name)
        except BaseException:
            plain.close()
            raise

    def serial_number(self, name: str = NAME) -> str | None:
        """That of the certificate that new clients get; `None` if they do not trust it."""
        try:
            with self.connect(name) as connection:
                certificate = connection.getpeercert()
        except ssl.SSLError:
            return None
        assert certificate is not None
        return str(certificate["serialNumber"])

    def log_text(self) -> str:
        """What it has logged so far."""
        return (self.directory / "server.log").read_text()


def _request(port: int, path: str = "/", method: str = "GET", host: str = NAME) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, headers={"Host": host})
        response = connection.getresponse()
        response.read()
        return response
    finally:
        connection.close()


def get_versions(connection: ssl.SSLSocket) -> int:
    """The status of a request on a connection that stays open."""
    connection.sendall(f"GET /_matrix/client/versions HTTP/1.1\r\nHost: {NAME}\r\n\r\n".encode())
    response = http.client.HTTPResponse(connection)
    response.begin()
    response.read()
    return response.status


def until(condition: Callable[[], Any], seconds: float = SECONDS) -> Any:
    """The value of a condition, once it is true."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.1)
    return value


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def test_a_server_obtains_its_certificate_and_keeps_it(folder: Path) -> None:
    """The operator does nothing; a restart needs no other certificate, and orders none."""
    with running_pebble(folder, refused_nonces=30) as pebble, AcmeServer(pebble) as server:
        server.start()

        first = until(server.serial_number)

        with server.connect() as connection:
            assert get_versions(connection) == 200
        until((server.directory / "data/acme/certificate.pem").exists)
        server.stop()
        server.start()
        assert server.serial_number() == first
        time.sleep(1)
        assert server.serial_number() == first
        assert server.log_text().count("ordering a certificate") == 1
        assert server.new_errors() == []

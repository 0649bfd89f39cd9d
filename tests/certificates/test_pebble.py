"""A real ACME server: what it issues to a real server process, and what it refuses."""

import contextlib
import http.client
import json
import re
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.certificates.pebble import MAC_KEY, Pebble, needs_pebble, running_pebble
from tests.support.process import CHECKOUT, ServerProcess, free_port

pytestmark = [pytest.mark.interop, needs_pebble]
NAME = "example.test"
SECONDS = 60.0


class AcmeServer(ServerProcess):
    """A server that obtains its certificate from a Pebble."""

    def __init__(self, pebble: Pebble, *, name: str = NAME, **acme: Any) -> None:
        self.pebble = pebble
        directory = Path(tempfile.mkdtemp(prefix="homeserver-acme-"))
        directory.chmod(0o755)
        port = free_port()
        overrides = {
            "server_name": name,
            "public_baseurl": f"https://{name}:{port}",
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

    @property
    def address(self) -> str:
        """The published address."""
        return f"https://{NAME}:{self.port}"

    def change(self, **settings: Any) -> None:
        """Change the configuration, which is JSON."""
        present = json.loads(self.config_path.read_text())
        self.config_path.write_text(json.dumps(present | settings))

    def is_responding(self) -> bool:
        """Whether it listens, with any certificate."""
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


def get(connection: ssl.SSLSocket, path: str) -> tuple[int, str]:
    """The status and the body of a response on a connection that stays open."""
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {NAME}\r\n\r\n".encode())
    response = http.client.HTTPResponse(connection)
    response.begin()
    body = response.read()
    return response.status, body.decode()


def figure(metrics: str, name: str) -> float:
    """The value of a metric."""
    return next(float(line.split()[1]) for line in metrics.splitlines() if line.startswith(name))


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
            assert get(connection, "/_matrix/client/versions")[0] == 200
            _, metrics = get(connection, "/metrics")
        assert 89 * 86_400 < figure(metrics, "homeserver_certificate_seconds_left") < 90 * 86_400
        assert figure(metrics, "homeserver_certificate_orders_failed_total") == 0
        until((server.directory / "data/acme/certificate.pem").exists)
        server.stop()
        server.start()
        assert server.serial_number() == first
        time.sleep(1)
        assert server.serial_number() == first
        assert server.log_text().count("ordering a certificate") == 1
        assert server.new_errors() == []


def test_port_80_serves_challenges_alone_and_leads_to_https(folder: Path) -> None:
    """A browser that was given the bare name arrives; a stranger's token does not."""
    with running_pebble(folder) as pebble, AcmeServer(pebble) as server:
        server.start()

        page = _request(pebble.http_port, "/_matrix/client/versions?a=b", host="evil.example")
        token = _request(pebble.http_port, "/.well-known/acme-challenge/abc")
        password = _request(pebble.http_port, "/_matrix/client/v3/login", method="POST")

        assert page.status == 301
        assert page.headers["Location"] == f"{server.address}/_matrix/client/versions?a=b"
        assert token.status == 404
        assert password.status == 405


def test_renewed_while_a_connection_stays_open(folder: Path) -> None:
    """Nobody notices, whatever the lifetime that the authority has chosen."""
    with running_pebble(folder, lifetime=45) as pebble, AcmeServer(pebble) as server:
        server.start()
        first = until(server.serial_number)

        with server.connect() as connection:
            until(lambda: server.serial_number() not in (first, None), 90)

            assert get(connection, "/_matrix/client/versions")[0] == 200
        assert server.new_errors() == []


def test_an_account_is_bound_to_one_that_the_authority_knows(folder: Path) -> None:
    """ZeroSSL and Google want it, and so do authorities of organisations."""
    external = {"key_id": "kid-1", "hmac_key": MAC_KEY}
    with (
        running_pebble(folder, external_accounts=True) as pebble,
        AcmeServer(pebble, email="admin@example.org", external_account=external) as server,
    ):
        server.start()

        assert until(server.serial_number)


def test_without_the_account_that_the_authority_wants_the_log_says_so(folder: Path) -> None:
    """The operator reads the words of the authority."""
    with running_pebble(folder, external_accounts=True) as pebble, AcmeServer(pebble) as server:
        server.start()

        [line] = until(server.new_errors)

        assert "externalAccountBinding" in line
        assert server.serial_number() is None


def test_a_name_that_is_refused_is_named_and_tried_later(folder: Path) -> None:
    """The server serves its users meanwhile, as far as they accept a self-signed certificate."""
    names = [NAME, "blocked.test"]
    with (
        running_pebble(folder, blocked=("blocked.test",)) as pebble,
        AcmeServer(pebble, names=names) as server,
    ):
        server.start()
        [line] = until(server.new_errors)

        server.stop()
        server.start()

        assert "blocked.test" in line
        assert "The next attempt is in 15 minutes" in line
        until(lambda: "the next attempt to obtain a certificate" in server.log_text())
        assert server.log_text().count("ordering a certificate") == 1


def test_a_name_that_leads_elsewhere_fails_with_the_reason(folder: Path) -> None:
    """The authority says what it found at port 80."""
    with running_pebble(folder) as pebble:
        pebble.http_port = free_port()
        with AcmeServer(pebble) as server:
            server.start()

            [line] = until(server.new_errors)

            assert f"{NAME}: " in line
            assert "refused" in line


def test_an_account_that_the_authority_has_lost_is_registered_again(folder: Path) -> None:
    """Pebble forgets everything with each start; others close accounts that nobody uses."""
    with running_pebble(folder) as pebble, AcmeServer(pebble) as server:
        server.start()
        until(server.serial_number)
        until((server.directory / "data/acme/certificate.pem").exists)
        accounts = server.directory / "data/acme/accounts.json"
        changed = accounts.read_text().replace("/my-account/", "/my-account/0")
        assert changed != accounts.read_text()
        server.stop()

        accounts.write_text(changed)
        (server.directory / "data/acme/certificate.pem").unlink()
        server.start()

        assert until(server.serial_number)
        assert server.new_errors() == []


def test_a_server_that_is_stopped_in_the_middle_of_an_order_continues_with_it(
    folder: Path,
) -> None:
    """The operator waits neither for its end nor, after the next start, for another attempt."""
    with (
        running_pebble(folder) as pebble,
        socket.create_server(("127.0.0.1", 0)) as silent,
        AcmeServer(pebble) as server,
    ):
        directory = f"https://127.0.0.1:{silent.getsockname()[1]}/dir"
        server.change(acme=pebble.settings(directory=directory))
        server.start()
        until(lambda: _orders(server))
        begin = time.monotonic()

        assert server.stop() == 0

        assert time.monotonic() - begin < 8
        server.start()
        until(lambda: _orders(server))
        assert server.new_errors() == []


def test_a_server_that_is_killed_in_the_middle_of_an_order_leaves_no_process(
    folder: Path,
) -> None:
    """And the next start waits for a quarter of an hour, as the order may be the reason."""
    with (
        running_pebble(folder) as pebble,
        socket.create_server(("127.0.0.1", 0)) as silent,
        AcmeServer(pebble) as server,
    ):
        # It accepts connections, and never says anything.
        directory = f"https://127.0.0.1:{silent.getsockname()[1]}/dir"
        server.change(acme=pebble.settings(directory=directory))
        server.start()
        order = until(lambda: _orders(server))

        server.kill()

        until(lambda: not any(Path(f"/proc/{pid}/stat").exists() for pid in order))
        server.start()
        until(lambda: "the next attempt to obtain a certificate" in server.log_text())


def test_init_run_doctor(folder: Path) -> None:
    """What the manual says is all that is needed; only ports and authority differ here."""
    with running_pebble(folder) as pebble, AcmeServer(pebble) as server:
        server.config_path.unlink()
        words = ["init", "--acme", "admin@example.org", NAME]
        _homeserver(server, *words, "--config", str(server.config_path))
        text = server.config_path.read_text()
        for place, own in (
            ("port: 443\n", f"port: {server.port}\n"),
            ("port: 80\n", f"port: {pebble.http_port}\n"),
            ("#directory: https://acme-v02.api.letsencrypt.org/directory", _yaml(pebble)),
            ("#file: /var/log/homeserver.log", f"file: {server.directory / 'server.log'}"),
        ):
            assert place in text
            text = text.replace(place, own)
        server.config_path.write_text(text)

        server.start()
        until(server.serial_number)
        with server.connect() as connection:
            assert get(connection, "/_matrix/client/versions")[0] == 200
        until((server.directory / "data/acme/certificate.pem").exists)
        printed = _homeserver(server, "doctor", "--config", str(server.config_path))

        assert re.search(rf"ok +certificate: {NAME}, by CN=Pebble .*; it is renewed at", printed)
        assert printed.count("this server responds") in (2, 4)  # with or without IPv6
        assert f"http://{NAME}/: cannot be reached from here" in printed
        assert server.new_errors() == []


def _yaml(pebble: Pebble) -> str:
    return f"directory: {pebble.directory}\n  ca_file: {pebble.ca_file}"


def _homeserver(server: ServerProcess, *words: str) -> str:
    """What a command prints."""
    command = [sys.executable, "-m", "homeserver", *words]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def _orders(server: ServerProcess) -> list[int]:
    """The processes of orders."""
    found = []
    for pid in server.process_ids():
        with contextlib.suppress(OSError):
            if b"obtain.py" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found

"""SIGHUP and TLS with a real server process: the certificates of clients, and the log file."""

import http.client
import os
import shutil
import signal
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.certificates import CertificateAuthority
from tests.support.process import ServerProcess
from tests.support.program import free_port

pytestmark = pytest.mark.interop
SECONDS = 10.0


class Served:
    """A server process with TLS, and the authority that its clients trust."""

    def __init__(self, directory: Path) -> None:
        self.authority = CertificateAuthority(directory)
        self.files = self.authority.issue()
        port = free_port()
        tls = {
            "certificate": f"{self.files.certificate}",
            "private_key": f"{self.files.private_key}",
        }
        listener = {"port": port, "bind": "127.0.0.1", "resources": ["client"], "tls": tls}
        self.log = directory / "server.log"
        self.program = ServerProcess(
            directory,
            port=port,
            overrides={"listeners": [listener]},
            trusting=self.authority.client_context(),
        )

    def connect(self, *offered: str) -> http.client.HTTPSConnection:
        """A connection that stays open; `offered` are the protocols in the TLS handshake."""
        context = self.authority.client_context()
        if offered:
            context.set_alpn_protocols(list(offered))
        connection = http.client.HTTPSConnection(
            "127.0.0.1", self.program.port, timeout=SECONDS, context=context
        )
        connection.connect()
        return connection

    def hang_up(self) -> None:
        """Send SIGHUP to the process."""
        os.kill(self.program.pid, signal.SIGHUP)

    def serial_number(self) -> str:
        """The number of the certificate that a new connection gets."""
        connection = self.connect()
        try:
            return certificate_number(connection)
        finally:
            connection.close()


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """The server of all tests here."""
    directory = Path(tempfile.mkdtemp(prefix="homeserver-hangup-"))
    directory.chmod(0o755)
    one = Served(directory)
    with one.program:
        one.program.start()
        yield one


def certificate_number(connection: http.client.HTTPSConnection) -> str:
    """The number of the certificate that this connection began with."""
    assert isinstance(connection.sock, ssl.SSLSocket)
    certificate = connection.sock.getpeercert()
    assert certificate is not None
    return str(certificate["serialNumber"])


def is_served(connection: http.client.HTTPSConnection) -> bool:
    """Whether a request on this connection is answered."""
    connection.request("GET", "/_matrix/client/versions")
    response = connection.getresponse()
    response.read()
    return response.status == 200


def becomes_true(condition: Callable[[], bool]) -> bool:
    """Whether a condition comes true in time."""
    end = time.monotonic() + SECONDS
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def test_renewed_certificate_is_served_after_sighup(served: Served) -> None:
    """Certificates are renewed every few weeks, without disconnecting clients."""
    old = served.connect()
    before = certificate_number(old)
    served.authority.issue()
    assert served.serial_number() == before

    served.hang_up()

    assert becomes_true(lambda: served.serial_number() != before)
    assert is_served(old)


def test_broken_certificate_leaves_the_old_one_in_use_and_is_logged(served: Served) -> None:
    """An error in renewing must not end a running server, and must be logged."""
    before = served.serial_number()
    served.program.new_errors()
    served.files.private_key.write_text("no key")

    served.hang_up()

    assert becomes_true(
        lambda: any("the old certificate stays" in line for line in served.program.new_errors())
    )
    assert served.serial_number() == before
    served.authority.issue()
    served.hang_up()
    assert becomes_true(lambda: served.serial_number() != before)


def test_log_file_that_was_moved_is_opened_again_by_the_same_signal(served: Served) -> None:
    """One signal does both: rotating logs does not need or affect a renewed certificate."""
    old = served.log.with_suffix(".1")
    served.log.rename(old)
    size = old.stat().st_size

    served.hang_up()

    assert becomes_true(served.log.exists)
    assert is_served(served.connect())
    assert old.stat().st_size == size


def test_clients_that_offer_protocols_are_served(served: Served) -> None:
    """Most libraries offer HTTP/1.1 in the TLS handshake (ALPN), browsers HTTP/2 too."""
    for offered in ([], ["http/1.1"], ["h2", "http/1.1"], ["h2"]):
        connection = served.connect(*offered)

        assert is_served(connection), offered
        assert isinstance(connection.sock, ssl.SSLSocket)
        chosen = "http/1.1" if "http/1.1" in offered else None
        assert connection.sock.selected_alpn_protocol() == chosen


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("option", ["--http1.1", "--http2", "--no-alpn"])
def test_curl_is_served(served: Served, option: str) -> None:
    """An administrator tries this first."""
    url = f"{served.program.url}/_matrix/client/versions"
    trust = ("--cacert", str(served.authority.path))
    done = subprocess.run(
        ["curl", "--silent", "--show-error", *trust, option, url],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
    assert '"versions"' in done.stdout

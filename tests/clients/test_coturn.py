"""A real TURN server: coturn accepts the credentials that clients get, and no others."""

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from homeserver.cli.doctor.findings import Severity
from homeserver.cli.doctor.turn_checks import check_turn
from homeserver.config.sections.calls import TurnSettings
from homeserver.config.settings import Settings
from tests.clients.plain_client import CLIENT, register
from tests.support.process import SHARED_SECRET, free_port, running_server

SECRET = "a secret of two servers"
START_SECONDS = 20.0
pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(shutil.which("turnserver") is None, reason="coturn is not installed"),
]


@pytest.fixture(scope="module")
def turn_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a running coturn."""
    folder, port = tmp_path_factory.mktemp("coturn"), free_port()
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(_coturn(folder, port), stdout=log, stderr=log) as process,
    ):
        try:
            _wait_until_it_responds(port)
            yield port
        finally:
            process.terminate()


def test_a_call_is_relayed_with_the_credentials_of_a_user(turn_port: int) -> None:
    """Both sides allocate a relayed address and exchange data through it."""
    credentials = issued_credentials(turn_port)

    relayed = relay(turn_port, credentials["username"], credentials["password"])

    assert relayed.returncode == 0, relayed.stdout
    assert "Total lost packets 0" in relayed.stdout


def test_changed_credentials_are_worth_nothing(turn_port: int) -> None:
    """Nobody can extend the time, or use the credentials under another name."""
    credentials = issued_credentials(turn_port)
    expiry, _, user_id = credentials["username"].partition(":")

    later = relay(turn_port, f"{int(expiry) + 1}:{user_id}", credentials["password"])

    assert later.returncode != 0
    assert "Cannot complete Allocation" in later.stdout


def issued_credentials(port: int) -> Any:
    """What a user gets from a server that knows the TURN server."""
    turn = {"uris": [f"turn:127.0.0.1:{port}?transport=udp"], "shared_secret": SECRET}
    with running_server({"turn": turn}) as server:
        user = register(server.url, SHARED_SECRET, "alice")
        return user.request("GET", f"{CLIENT}/voip/turnServer")


def relay(port: int, username: str, password: str) -> "subprocess.CompletedProcess[str]":
    """Exchange data between two clients of the TURN server."""
    options = ["-u", username, "-w", password, "-p", str(port), "-y", "-c", "-n", "1", "-m", "1"]
    return subprocess.run(
        ["turnutils_uclient", *options, "127.0.0.1"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def _coturn(folder: Path, port: int) -> list[str]:
    return [
        "turnserver",
        "-n",
        "--no-cli",
        "--use-auth-secret",
        f"--static-auth-secret={SECRET}",
        "--realm=example.org",
        "--listening-ip=127.0.0.1",
        f"--listening-port={port}",
        "--relay-ip=127.0.0.1",
        "--allow-loopback-peers",
        "--no-tls",
        "--no-dtls",
        "--log-file=stdout",
        f"--userdb={folder / 'users'}",
        f"--pidfile={folder / 'pid'}",
    ]


def _wait_until_it_responds(port: int) -> None:
    uri = f"turn:127.0.0.1:{port}?transport=udp"
    settings = Settings(turn=TurnSettings(uris=(uri,), shared_secret=SECRET))
    deadline = time.monotonic() + START_SECONDS
    while [each.severity for each in check_turn(settings)] != [Severity.OK]:
        assert time.monotonic() < deadline, "coturn does not start"
        time.sleep(0.1)

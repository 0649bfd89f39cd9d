"""The doctor's check of the TURN server."""

import socket
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from homeserver.cli.doctor.findings import Severity
from homeserver.cli.doctor.turn_checks import check_turn
from homeserver.config.sections.calls import TurnSettings
from homeserver.config.settings import Settings


@pytest.fixture
def server() -> Iterator[socket.socket]:
    """A socket that receives datagrams."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind(("127.0.0.1", 0))
        bound.settimeout(10)
        yield bound


def severities(uri: str, **turn: object) -> list[Severity]:
    """What the doctor says of a TURN server at one address."""
    settings = Settings(turn=TurnSettings(uris=(uri,), **(turn or {"shared_secret": "s"})))
    return [finding.severity for finding in check_turn(settings)]


@pytest.mark.parametrize(("is_stun", "expected"), [(True, Severity.OK), (False, Severity.PROBLEM)])
def test_a_turn_server_responds(
    server: socket.socket, expected: Severity, *, is_stun: bool
) -> None:
    """Another service at the same port is recognised as one."""

    def respond() -> None:
        request, client = server.recvfrom(100)
        server.sendto(b"\x01\x01\x00\x00" + request[4:] if is_stun else b"hello", client)

    thread = Thread(target=respond)
    thread.start()

    found = severities(f"turn:127.0.0.1:{server.getsockname()[1]}?transport=udp")

    thread.join()
    assert found == [expected]


def test_an_unreachable_one_is_a_warning() -> None:
    """It may be reachable for clients alone."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]

        assert severities(f"turn:127.0.0.1:{port}?transport=tcp") == [Severity.WARNING]


def test_a_missing_file_is_a_problem(tmp_path: Path) -> None:
    """The server would not start."""
    found = severities("turns:127.0.0.1?transport=udp", shared_secret_file=tmp_path / "none")

    assert found == [Severity.PROBLEM, Severity.OK]


def test_what_is_no_address_is_a_problem() -> None:
    """The scheme alone is not enough."""
    assert severities("turn:?transport=udp") == [Severity.PROBLEM]

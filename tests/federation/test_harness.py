"""The infrastructure of scenarios: networks that fail on demand, processes that always end."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from tests.support.program import CHECKOUT
from tests.support.proxy import Mode, Proxy

PATIENCE_SECONDS = 60.0  # a busy machine is slow; only failures wait that long
SILENCE_SECONDS = 0.2


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that sends back what it gets."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=_echo, args=(listening,), daemon=True).start()
        yield listening.getsockname()[1]


@pytest.fixture
def proxy(echo: int) -> Iterator[Proxy]:
    """A proxy before that server."""
    with Proxy(echo) as running:
        yield running


def test_proxy_passes_bytes_on(proxy: Proxy) -> None:
    """A client of the proxy talks to the server."""
    arrival = proxy.next_bytes()
    with call(proxy) as caller:
        caller.sendall(b"hello")

        assert caller.recv(5) == b"hello"
        arrival.result(PATIENCE_SECONDS)


def test_refusing_breaks_open_and_new_connections(proxy: Proxy) -> None:
    """A cut network is noticed at once."""
    with call(proxy) as caller:
        caller.sendall(b"hello")
        assert caller.recv(5) == b"hello"

        proxy.set_mode(Mode.REFUSE)

        assert is_broken(caller)
    with call(proxy) as late:
        assert is_broken(late)


def test_stalling_delays_bytes_until_it_passes_again(proxy: Proxy) -> None:
    """A network that loses packets is noticed only by silence."""
    with call(proxy) as caller:
        proxy.set_mode(Mode.STALL)
        caller.sendall(b"hello")
        caller.settimeout(SILENCE_SECONDS)
        with pytest.raises(TimeoutError):
            caller.recv(5)

        proxy.set_mode(Mode.PASS)

        caller.settimeout(PATIENCE_SECONDS)
        assert caller.recv(5) == b"hello"


def test_proxy_passes_on_again_after_refusing(proxy: Proxy) -> None:
    """A network that was cut can be healed, and the server's address is the same."""
    proxy.set_mode(Mode.REFUSE)
    proxy.set_mode(Mode.PASS)

    with call(proxy) as caller:
        caller.sendall(b"hello")
        assert caller.recv(5) == b"hello"


def test_servers_end_with_the_tests_that_started_them() -> None:
    """Tests that are killed leave no server behind."""
    tests = subprocess.Popen(
        [sys.executable, "-c", STARTS_A_SERVER], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True
    )
    assert tests.stdout is not None
    server = int(tests.stdout.readline())
    os.kill(server, 0)

    tests.kill()
    tests.wait()

    deadline = time.monotonic() + PATIENCE_SECONDS
    while is_running(server):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    tests.stdout.close()


STARTS_A_SERVER = """
import subprocess, sys, time
from tests.support.program import _notify_keeper
server = subprocess.Popen(["sleep", "1000"])
_notify_keeper("+", server.pid)
print(server.pid, flush=True)
time.sleep(1000)
"""


def call(proxy: Proxy) -> socket.socket:
    """A connection to the proxy."""
    return socket.create_connection(("127.0.0.1", proxy.port), PATIENCE_SECONDS)


def is_broken(caller: socket.socket) -> bool:
    """Whether the other side closes a connection without sending a byte."""
    with contextlib.suppress(ConnectionError):
        caller.sendall(b"anybody?")
        return caller.recv(1) == b""
    return True


def is_running(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    command = ["ps", "-o", "stat=", "-p", str(pid)]
    listed = subprocess.run(command, check=False, capture_output=True, text=True)
    return listed.stdout.strip()[:1] not in ("", "Z")


def _echo(listening: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            connection, _ = listening.accept()
            threading.Thread(target=_echo_one, args=(connection,), daemon=True).start()


def _echo_one(connection: socket.socket) -> None:
    with connection, contextlib.suppress(OSError):
        while data := connection.recv(1000):
            connection.sendall(data)

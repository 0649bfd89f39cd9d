"""A homeserver as a process, of any implementation: started, killed and started again.

All its data is under one directory. Its port and its data outlive a kill, so that clients can
continue. It does not outlive the tests, however these end: a keeper (this module, run as a program)
is notified of every process, and ends the remaining ones when the tests are gone.
"""

import atexit
import contextlib
import functools
import http.client
import os
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import IO

from tests.support.closing import ClosedOnExit

SHARED_SECRET = "outside-tests"
CHECKOUT = Path(__file__).resolve().parents[2]
# Benchmarks compare the server of this checkout with that of another one.
SERVER_CHECKOUT = Path(os.environ.get("HOMESERVER_BENCHMARK_CHECKOUT", CHECKOUT))
SKEWED_CLOCK = CHECKOUT / "tests" / "support" / "skewed_clock"
START_SECONDS = 60.0
STOP_SECONDS = 30.0
OWN_PORTS = range(20_000, 32_000)


class ServerDied(Exception):
    """The process ended, or did not answer in time; the message holds what it printed last."""


class Program(ClosedOnExit):
    """One homeserver that listens on a port of the loopback address.

    `port` is any free one unless it is given. `trusting` verifies its certificate, None for a
    server without TLS; `cpus` are the cores that it may use, all when it is None.
    """

    def __init__(
        self,
        directory: Path,
        *,
        port: int | None = None,
        trusting: ssl.SSLContext | None = None,
        cpus: set[int] | None = None,
    ) -> None:
        self.directory = directory
        self.port = free_port() if port is None else port
        self.clock_skew = 0.0  # seconds by which its clock is to be ahead
        self.clock_jump = 0.0  # seconds by which `jump` sets the clock of the running process
        self._trusting = trusting
        self._cpus = cpus
        self._process: subprocess.Popen[bytes] | None = None

    @property
    @abstractmethod
    def command(self) -> list[str]:
        """The command line of the process."""

    @property
    def environment(self) -> Mapping[str, str]:
        """The variables of the process."""
        return os.environ

    @property
    def logs(self) -> list[Path]:
        """Files with the output and the log of the server; not all of them need exist."""
        return [self.directory / "output.log", self.directory / "server.log"]

    @property
    def url(self) -> str:
        """Base URL of the Client-Server API, without a trailing slash."""
        scheme = "http" if self._trusting is None else "https"
        return f"{scheme}://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        if self._process is None:
            raise ServerDied("the server is not running")
        return self._process.pid

    def start(self, timeout: float = START_SECONDS) -> None:
        """Start the process and wait until it responds; `ServerDied` after `timeout` seconds."""
        with (self.directory / "output.log").open("ab") as output:
            self._process = subprocess.Popen(
                self.command,
                cwd=SERVER_CHECKOUT,
                env={**self.environment, **self._skewed()},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        _notify_keeper("+", self._process.pid)
        if self._cpus:
            # In time for all that the process will start.
            os.sched_setaffinity(self._process.pid, self._cpus)
        deadline = time.monotonic() + timeout
        while not self.is_responding():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise ServerDied(f"the server did not start:\n{self.last_output()}")
            time.sleep(0.05)

    def _skewed(self) -> dict[str, str]:
        """The variables that set the clock wrong."""
        if not self.clock_skew and not self.clock_jump:
            return {}
        return {
            "PYTHONPATH": str(SKEWED_CLOCK),
            "CLOCK_SKEW_SECONDS": str(self.clock_skew),
            "CLOCK_JUMP_SECONDS": str(self.clock_jump),
        }

    def jump(self) -> None:
        """Set the clock of the running process by `clock_jump`, as an administrator might."""
        os.kill(self.pid, signal.SIGUSR2)

    def wait_for_end(self, timeout: float) -> int:
        """The exit status of a process that ends by itself; `ServerDied` if it does not."""
        process = self._ended()
        try:
            return process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise ServerDied(f"the server did not end:\n{self.last_output()}") from None
        finally:
            _notify_keeper("-", process.pid)

    def is_responding(self) -> bool:
        """Whether the server responds to `GET /_matrix/client/versions` with 200."""
        if self._trusting is None:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        else:
            connection = http.client.HTTPSConnection(
                "127.0.0.1", self.port, timeout=5, context=self._trusting
            )
        try:
            connection.request("GET", "/_matrix/client/versions")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def stop(self) -> int:
        """End the server as an administrator would, by SIGINT; gives its exit status."""
        process = self._ended()
        process.send_signal(signal.SIGINT)
        try:
            return process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise ServerDied(f"the server did not stop:\n{self.last_output()}") from None
        finally:
            _notify_keeper("-", process.pid)

    def kill(self) -> None:
        """Kill the server with SIGKILL."""
        process = self._ended()
        process.kill()
        process.wait()
        _notify_keeper("-", process.pid)

    def last_output(self, lines: int = 30) -> str:
        """The last lines that the server printed or logged."""
        texts = [
            path.read_text(errors="replace").splitlines()[-lines:]
            for path in self.logs
            if path.exists()
        ]
        return "\n".join(line for text in texts for line in text)

    def new_errors(self) -> list[str]:
        """The error lines in the log since the last call.

        The log of another implementation is not read.
        """
        return []

    def close(self) -> None:
        """End a running process and remove the directory."""
        if self._process is not None:
            with contextlib.suppress(ServerDied):
                self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _ended(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise ServerDied("the server is not running")
        process, self._process = self._process, None
        return process


def free_port() -> int:
    """A TCP port of the loopback address that nothing listens on just now.

    It is below those that systems take for outgoing connections, so that it is still free when a
    server that was killed comes back to it.
    """
    while True:
        port = secrets.choice(OWN_PORTS)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@functools.cache
def _keeper() -> IO[bytes]:
    keeper = subprocess.Popen(
        [sys.executable, "-m", __name__],
        cwd=CHECKOUT,
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    keeper.returncode = 0  # it outlives this process on purpose, of which Popen would warn
    assert keeper.stdin is not None
    atexit.register(keeper.stdin.close)
    return keeper.stdin


def _notify_keeper(change: str, pid: int) -> None:
    pipe = _keeper()
    pipe.write(f"{change}{pid}\n".encode())
    pipe.flush()


def keep(changes: Iterable[str]) -> None:
    """End what was started (`+pid`) and not seen to end (`-pid`), once no more changes come."""
    running: set[int] = set()
    for change in changes:
        pid = int(change[1:])
        if change[0] == "+":
            running.add(pid)
        else:
            running.discard(pid)
    deadline = time.monotonic() + STOP_SECONDS
    asked, running = running, {pid for pid in running if _signal(pid, signal.SIGINT)}
    while running and time.monotonic() < deadline:
        time.sleep(0.1)
        running = {pid for pid in running if _signal(pid, 0)}
    for pid in asked & running:
        _signal(pid, signal.SIGKILL)


def _signal(pid: int, number: int) -> bool:
    """Send the signal; returns whether the process existed."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    keep(sys.stdin)

"""A real server process for tests and benchmarks: started, killed and started again.

`homeserver run` with a generated configuration, an embedded database and a free port, all under
one directory. The port and the data outlive a kill, so that what a client knows stays true. The
directory must be one that other users can enter: PostgreSQL refuses root, so its process runs as
another user.

A killed server leaves its database process behind, as after a real crash; the next start has to
cope with it, and `close` ends it.
"""

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

SHARED_SECRET = "outside-tests"
CHECKOUT = Path(__file__).resolve().parents[2]
START_SECONDS = 60.0
STOP_SECONDS = 30.0


class ServerDied(Exception):
    """The process ended, or did not answer in time; the message holds what it printed last."""


class ServerProcess:
    """One homeserver with its own directory, port and database.

    `overrides` replace top-level keys of the configuration; `cpus` are the cores that the server
    and its database may use, all when it is None.
    """

    def __init__(
        self,
        directory: Path,
        *,
        overrides: dict[str, Any] | None = None,
        cpus: set[int] | None = None,
    ) -> None:
        self.directory = directory
        self.port = free_port()
        self.config_path = directory / "homeserver.yaml"
        self._cpus = cpus
        self._process: subprocess.Popen[bytes] | None = None
        # JSON is YAML.
        settings = default_settings(directory, self.port) | (overrides or {})
        self.config_path.write_text(json.dumps(settings, indent=2))

    @property
    def url(self) -> str:
        """Base URL of the Client-Server API, without a trailing slash."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        if self._process is None:
            raise ServerDied("the server is not running")
        return self._process.pid

    def start(self, timeout: float = START_SECONDS) -> None:
        """Start the process and wait until it answers; `ServerDied` after `timeout` seconds."""
        with (self.directory / "output.log").open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "homeserver", "run", "--config", str(self.config_path)],
                cwd=CHECKOUT,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        if self._cpus:
            # In time for all that the process will start.
            os.sched_setaffinity(self._process.pid, self._cpus)
        deadline = time.monotonic() + timeout
        while not self.answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise ServerDied(f"the server did not start:\n{self.last_output()}")
            time.sleep(0.05)

    def answers(self) -> bool:
        """Whether the server answers `GET /_matrix/client/versions` with 200."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
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

    def kill(self) -> None:
        """Kill the server with SIGKILL; its database process is left as it is."""
        process = self._ended()
        process.kill()
        process.wait()

    def kill_database(self) -> None:
        """Kill the database's main process with SIGKILL while the server runs on."""
        pid = self.database_pid()
        if pid is None:
            raise ServerDied("there is no database process")
        os.kill(pid, signal.SIGKILL)

    def database_pid(self) -> int | None:
        """Process id of the embedded database, or None when it does not run."""
        for pid_file in (self.directory / "data").glob("**/postmaster.pid"):
            pid = int(pid_file.read_text().split()[0])
            if _runs(pid, "postgres"):
                return pid
        return None

    def process_ids(self) -> list[int]:
        """The server and all processes that descend from it, its database's among them."""
        return descendants(self.pid)

    def last_output(self, lines: int = 30) -> str:
        """The last lines that the server printed or logged."""
        texts = [
            path.read_text(errors="replace").splitlines()[-lines:]
            for path in (self.directory / "output.log", self.directory / "server.log")
            if path.exists()
        ]
        return "\n".join(line for text in texts for line in text)

    def close(self) -> None:
        """End whatever still runs and remove the directory."""
        if self._process is not None:
            with contextlib.suppress(ServerDied):
                self.stop()
        pid = self.database_pid()
        if pid is not None:
            os.kill(pid, signal.SIGINT)
            deadline = time.monotonic() + STOP_SECONDS
            while _runs(pid, "postgres") and time.monotonic() < deadline:
                time.sleep(0.02)
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _ended(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise ServerDied("the server is not running")
        process, self._process = self._process, None
        return process


@contextlib.contextmanager
def running_server(
    overrides: dict[str, Any] | None = None, *, cpus: set[int] | None = None
) -> Iterator[ServerProcess]:
    """A server that runs within the `with` block and leaves nothing behind."""
    directory = Path(tempfile.mkdtemp(prefix="homeserver-"))
    directory.chmod(0o755)
    with ServerProcess(directory, overrides=overrides, cpus=cpus) as server:
        server.start()
        yield server


def default_settings(directory: Path, port: int) -> dict[str, Any]:
    """Settings for a server that tests may hammer: open registration, cheap hashes, no limits."""
    return {
        "server_name": "localhost",
        "data_dir": str(directory / "data"),
        "signing_key_path": str(directory / "signing.key"),
        "listeners": [{"port": port, "bind": "127.0.0.1", "resources": ["client"]}],
        "registration": {"enabled": True, "guests": True, "shared_secret": SHARED_SECRET},
        "passwords": {"hash_cost": "lowest"},
        "rate_limits": {"enabled": False},
        "presence": {"enabled": True},
        "log": {"file": str(directory / "server.log"), "level": "INFO"},
    }


def free_port() -> int:
    """A TCP port of the loopback address that nothing listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def descendants(pid: int) -> list[int]:
    """A process and all that descend from it."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name in parentheses may hold spaces; the parent is the second field after it.
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found = [pid]
    for process in found:
        found.extend(children.get(process, []))
    return found


def _runs(pid: int, name: str) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return f"({name})" in status and status.rpartition(")")[2].split()[0] != "Z"

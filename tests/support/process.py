"""A real process of this server for tests and benchmarks.

`homeserver run` with a generated configuration, an embedded database and a free port, all under one
directory, which must be one that other users can enter: PostgreSQL refuses root, so its process
runs as another user.

A killed server leaves its database process behind, as after a real crash; the next start has to
cope with it, and `close` ends it.
"""

import contextlib
import json
import os
import re
import signal
import ssl
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.program import (
    CHECKOUT,
    SHARED_SECRET,
    STOP_SECONDS,
    Program,
    ServerDied,
    free_port,
)

__all__ = ["CHECKOUT", "SHARED_SECRET", "ServerDied", "ServerProcess", "free_port"]

FAULT = re.compile(r"\S+ (ERROR|CRITICAL) ")


class ServerProcess(Program):
    """One homeserver with its own directory, port and database.

    `overrides` replace top-level keys of the configuration; `cpus` are the cores that the server
    and its database may use, all when it is None. `trusting` verifies its certificate, if the
    overrides configure one.
    """

    def __init__(
        self,
        directory: Path,
        *,
        overrides: dict[str, Any] | None = None,
        cpus: set[int] | None = None,
        port: int | None = None,
        trusting: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(directory, port=port, trusting=trusting, cpus=cpus)
        self.config_path = directory / "homeserver.yaml"
        self._read = 0
        self.configure(overrides or {})

    def configure(self, overrides: dict[str, Any]) -> None:
        """Write the configuration, with these top-level keys in place of the ordinary ones."""
        # JSON is YAML.
        settings = default_settings(self.directory, self.port) | overrides
        self.config_path.write_text(json.dumps(settings, indent=2))

    @property
    def command(self) -> list[str]:
        """`homeserver run`, of `SERVER_CHECKOUT`."""
        return [sys.executable, "-m", "homeserver", "run", "--config", str(self.config_path)]

    def new_errors(self) -> list[str]:
        """The error lines in the log since the last call."""
        log = self.directory / "server.log"
        if not log.exists():
            return []
        with log.open("rb") as lines:
            lines.seek(self._read)
            new = lines.read()
        self._read += len(new)
        return [line for line in new.decode(errors="replace").splitlines() if FAULT.match(line)]

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

    def close(self) -> None:
        """End a running process and remove the directory."""
        if self._process is not None:
            with contextlib.suppress(ServerDied):
                self.stop()
        pid = self.database_pid()
        if pid is not None:
            os.kill(pid, signal.SIGINT)
            deadline = time.monotonic() + STOP_SECONDS
            while _runs(pid, "postgres") and time.monotonic() < deadline:
                time.sleep(0.02)
        super().close()


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
        "federation": {"deny": ["*"]},  # no test goes out to the internet
        "log": {"file": str(directory / "server.log"), "level": "INFO"},
    }


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

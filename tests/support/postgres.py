"""A PostgreSQL for tests: one cluster for all test processes, a fresh database for each test.

`fresh_database()` copies a template to which all migrations were applied, which takes a few
milliseconds. `DatabaseTestCase` does it for each test and opens a `Database` on it.

The first process that needs the cluster starts a keeper (this module, run as a program), which runs
the postmaster while any process holds a shared lock on the file `users`. The kernel releases the
lock when a process ends, for any reason, so no postmaster outlives the tests.
"""

import atexit
import fcntl
import functools
import hashlib
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from homeserver.storage.database.database import Database
from homeserver.storage.database.embedded import EmbeddedPostgres
from homeserver.storage.database.migrate import load_migrations, migrate
from homeserver.storage.rooms.event_json import unpack_json

CHECKOUT = Path(__file__).parents[2]
START_SECONDS = 60.0
SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "shared_buffers": "32MB",
    "autovacuum": "off",
}


def fresh_database() -> str:
    """The DSN of a new, migrated, empty database. Drop it with `drop_database`."""
    return _create(f"TEMPLATE {_template()}")


def empty_database() -> str:
    """The DSN of a new database without any table."""
    return _create("")


def drop_database(dsn: str) -> None:
    """Drop a database that `fresh_database` made, even with open connections to it."""
    name = conninfo_to_dict(dsn)["dbname"]
    _administration().execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)".encode())


def stored_json(dsn: str) -> list[bytes]:
    """The JSON of all events in a database, in the order of their positions."""
    with psycopg.connect(dsn) as connection:
        rows = connection.execute("SELECT json FROM events ORDER BY position").fetchall()
    return [unpack_json(json) for (json,) in rows]


class DatabaseTestCase(TestCase):
    """A test with a fresh database: `self.dsn`, and `self.db`, opened."""

    async def setUp(self) -> None:
        self.dsn = fresh_database()
        self.addCleanup(drop_database, self.dsn)
        self.db = Database(reactor, self.dsn, pool_size=4)
        # Trial runs clean-ups before `tearDown`, the last one first.
        self.addCleanup(lambda: Deferred.fromCoroutine(self.clean_up()))
        await self.db.open()

    async def clean_up(self) -> None:
        """Close what uses the database; called before it is dropped."""
        await self.db.close()


def _create(template: str) -> str:
    name = f"test_{os.getpid()}_{secrets.token_hex(4)}"
    _administration().execute(f"CREATE DATABASE {name} {template} STRATEGY file_copy".encode())
    return make_conninfo(_cluster(), dbname=name)


@functools.cache
def _administration() -> psycopg.Connection[Any]:
    """The connection on which this process creates and drops databases."""
    connection = psycopg.connect(_cluster(), autocommit=True)
    atexit.register(connection.close)
    return connection


def _directory() -> Path:
    checkout = hashlib.sha256(os.fspath(CHECKOUT).encode()).hexdigest()[:8]
    return Path(tempfile.gettempdir(), f"homeserver-tests-{os.geteuid()}-{checkout}")


@functools.cache
def _cluster() -> str:
    """The DSN of the cluster, which stays up as long as this process lives."""
    directory = _directory()
    directory.mkdir(mode=0o711, exist_ok=True)
    with (directory / "start").open("a") as starting:
        fcntl.flock(starting, fcntl.LOCK_EX)
        # Waits while a keeper that saw no users is taking the cluster down.
        users = (directory / "users").open("a")
        fcntl.flock(users, fcntl.LOCK_SH)
        atexit.register(_leave, users)
        ready = directory / "ready"
        if not (ready.exists() and _answers(ready.read_text())):
            ready.unlink(missing_ok=True)
            _start_keeper(directory)
        return ready.read_text()


def _start_keeper(directory: Path) -> None:
    with (directory / "keeper.log").open("w") as log:
        keeper = subprocess.Popen(
            [sys.executable, "-m", __name__, directory],
            cwd=CHECKOUT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    give_up = time.monotonic() + START_SECONDS
    while not (directory / "ready").exists():
        if keeper.poll() is not None or time.monotonic() > give_up:
            raise RuntimeError(f"no PostgreSQL: {(directory / 'keeper.log').read_text()}")
        time.sleep(0.02)
    keeper.returncode = 0  # it outlives this process on purpose, of which Popen would warn


def _leave(users: IO[str]) -> None:
    """Release the cluster, and wait for its end if no other process uses it."""
    fcntl.flock(users, fcntl.LOCK_UN)
    give_up = time.monotonic() + 10
    while (_directory() / "ready").exists() and time.monotonic() < give_up:
        if not _try_lock(users, fcntl.LOCK_EX) and _try_lock(users, fcntl.LOCK_SH):
            return  # other tests share it
        time.sleep(0.02)


def _try_lock(file: IO[str], kind: int) -> bool:
    """Whether a lock is free; it is released at once."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except OSError:
        return False
    fcntl.flock(file, fcntl.LOCK_UN)
    return True


def _answers(dsn: str) -> bool:
    try:
        psycopg.connect(dsn).close()
    except psycopg.OperationalError:
        return False
    return True


@functools.cache
def _template() -> str:
    """The name of a database with all migrations; there is one for each state of the files."""
    migrations = load_migrations()
    content = "".join(migration.checksum for migration in migrations)
    name = f"template_{hashlib.sha256(content.encode()).hexdigest()[:16]}"
    cluster = _cluster()
    with (_directory() / "template").open("a") as making:
        fcntl.flock(making, fcntl.LOCK_EX)
        with psycopg.connect(cluster, autocommit=True) as connection:
            found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
            if found.fetchone():
                return name
            connection.execute(f"CREATE DATABASE {name}_new".encode())
            try:
                migrate(make_conninfo(cluster, dbname=f"{name}_new"), migrations)
            except BaseException:
                connection.execute(f"DROP DATABASE {name}_new".encode())
                raise
            connection.execute(f"ALTER DATABASE {name}_new RENAME TO {name}".encode())
    return name


def keep(directory: Path) -> None:
    """Run the cluster until no process uses it, then remove it."""
    postgres = EmbeddedPostgres(directory / "cluster", SETTINGS)
    postgres.start()
    unfinished = directory / "ready.new"
    unfinished.write_text(postgres.dsn)
    unfinished.rename(directory / "ready")
    with (directory / "users").open("a") as users:
        fcntl.flock(users, fcntl.LOCK_EX)
        (directory / "ready").unlink()
        postgres.stop()
        shutil.rmtree(directory / "cluster")


if __name__ == "__main__":
    keep(Path(sys.argv[1]))

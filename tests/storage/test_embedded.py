"""The embedded PostgreSQL: it starts, keeps its data, is restarted, and is private."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from homeserver.storage.database import embedded
from homeserver.storage.database.embedded import EmbeddedPostgres, EmbeddedPostgresError
from homeserver.storage.database.postgres_binaries import copy_wheel, find_binaries, is_reachable
from homeserver.storage.database.supervised_postgres import SupervisedPostgres

CHECKOUT = Path(__file__).parents[2]
QUICK = {"fsync": "off", "shared_buffers": "16MB"}

# Starts the PostgreSQL of a directory, reports it, and is then killed by the test.
VICTIM = """
import sys, time
from pathlib import Path
from homeserver.storage.database.embedded import EmbeddedPostgres
postgres = EmbeddedPostgres(Path(sys.argv[1]), {"fsync": "off"})
postgres.start()
print("started", flush=True)
time.sleep(60)
"""


@pytest.fixture
def directory() -> Iterator[Path]:
    """A data directory that the user `postgres` can reach; pytest's own are private to root."""
    with tempfile.TemporaryDirectory(prefix="homeserver-embedded-") as name:
        Path(name).chmod(0o711)
        yield Path(name, "postgres")


@pytest.fixture
def embed(directory: Path) -> Iterator[Callable[..., EmbeddedPostgres]]:
    """Makes servers, and stops them at the end."""
    made: list[EmbeddedPostgres] = []

    def make(at: Path = directory) -> EmbeddedPostgres:
        made.append(EmbeddedPostgres(at, QUICK))
        return made[-1]

    yield make
    for postgres in made:
        postgres.stop()


def execute(dsn: str, statement: str) -> list[Any]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        return cursor.fetchall() if cursor.description else []


def postmaster(postgres: EmbeddedPostgres) -> int:
    return int((postgres.data / "postmaster.pid").read_text().split()[0])


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_data_outlive_a_stop(embed: Callable[..., EmbeddedPostgres]) -> None:
    """Data written before a shutdown are there after the next start."""
    postgres = embed()
    postgres.start()
    execute(postgres.dsn, "CREATE TABLE kept AS SELECT 1 AS n")
    pid = postmaster(postgres)

    postgres.stop()
    stopped = not is_alive(pid)
    postgres.start()

    assert stopped
    assert execute(postgres.dsn, "SELECT n FROM kept") == [(1,)]


def test_cluster_is_private_and_independent_of_the_locale(
    embed: Callable[..., EmbeddedPostgres],
) -> None:
    """Other users of the machine cannot connect, and text sorts as in every other installation."""
    postgres = embed()

    postgres.start()

    assert postgres.data.stat().st_mode & 0o077 == 0
    assert execute(
        postgres.dsn,
        "SELECT datcollate, pg_encoding_to_char(encoding), current_setting('listen_addresses'),"
        " current_setting('synchronous_commit') FROM pg_database WHERE datname = 'postgres'",
    ) == [("C", "UTF8", "", "on")]


def test_second_server_on_the_same_directory_is_refused(
    embed: Callable[..., EmbeddedPostgres],
) -> None:
    """Two servers on one database would corrupt each other's rooms."""
    first, second = embed(), embed()
    first.start()

    with pytest.raises(EmbeddedPostgresError, match="Another server uses"):
        second.start()
    second.stop()

    assert execute(first.dsn, "SELECT 1") == [(1,)]


def test_postmaster_of_a_killed_server_is_adopted(
    embed: Callable[..., EmbeddedPostgres], directory: Path
) -> None:
    """After a crash of the server, the next start continues with the running database."""
    victim = subprocess.Popen(
        [sys.executable, "-c", VICTIM, directory], cwd=CHECKOUT, stdout=subprocess.PIPE
    )
    assert victim.stdout is not None
    assert victim.stdout.readline() == b"started\n"
    victim.kill()
    victim.communicate()
    postgres = embed()

    pid = postmaster(postgres)
    postgres.start()
    adopted = (postmaster(postgres) == pid, postgres.is_running())
    answer = execute(postgres.dsn, "SELECT 1")
    postgres.stop()

    assert adopted == (True, True)
    assert answer == [(1,)]
    assert not is_alive(pid)


def test_start_recovers_after_the_postmaster_was_killed(
    embed: Callable[..., EmbeddedPostgres],
) -> None:
    """A power cut looks like this: a cluster that was not shut down."""
    postgres = embed()
    postgres.start()
    execute(postgres.dsn, "CREATE TABLE kept AS SELECT 1 AS n")
    os.kill(postmaster(postgres), signal.SIGKILL)
    postgres.stop()

    postgres.start()

    assert execute(postgres.dsn, "SELECT n FROM kept") == [(1,)]


@pytest.mark.parametrize("name", ["x" * 120, "a,b", "with space ü"])
def test_directory_may_have_any_name(
    embed: Callable[..., EmbeddedPostgres], directory: Path, name: str
) -> None:
    """A socket's path is short and simple by necessity; a data directory's need not be."""
    postgres = embed(directory / name)
    directory.mkdir(mode=0o755)

    postgres.start()
    sockets = Path(psycopg.conninfo.conninfo_to_dict(postgres.dsn)["host"])
    answer = execute(postgres.dsn, "SELECT 1")
    again = SupervisedPostgres(reactor, postgres).dsn
    postgres.stop()

    assert answer == [(1,)]
    assert again == postgres.dsn
    assert not sockets.exists()


def test_interrupted_creation_is_not_taken_for_a_cluster(
    embed: Callable[..., EmbeddedPostgres], directory: Path
) -> None:
    """A first start that was killed half-way is repeated."""
    unfinished = directory / "pgdata.new"
    unfinished.mkdir(parents=True)
    (unfinished / "PG_VERSION").write_text("18\n")
    postgres = embed()

    postgres.start()

    assert execute(postgres.dsn, "SELECT 1") == [(1,)]


def test_cluster_of_another_version_is_not_opened(
    embed: Callable[..., EmbeddedPostgres], directory: Path
) -> None:
    """An upgrade of the machine's PostgreSQL must not damage the data of the old one."""
    (directory / "pgdata").mkdir(parents=True)
    (directory / "pgdata" / "PG_VERSION").write_text("9\n")

    with pytest.raises(EmbeddedPostgresError, match="no PostgreSQL 9"):
        embed().start()


def test_cluster_that_cannot_start_reports_the_reason(
    embed: Callable[..., EmbeddedPostgres], directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operator reads the reason, not only that something failed."""
    postgres = embed()
    postgres.start()
    postgres.stop()
    (postgres.data / "postgresql.auto.conf").write_text("no_such_setting = 1\n")
    monkeypatch.setattr(embedded, "FAILING_SECONDS", 0.3)

    with pytest.raises(EmbeddedPostgresError, match="no_such_setting"):
        postgres.start()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root drops privileges")
class TestAsRoot:
    def test_private_directory_is_refused_with_advice(
        self, embed: Callable[..., EmbeddedPostgres], directory: Path
    ) -> None:
        """Permissions of directories outside the data directory never change."""
        private = directory / "private"
        private.mkdir(parents=True, mode=0o700)

        with pytest.raises(EmbeddedPostgresError, match="cannot reach"):
            embed(private / "postgres").start()

        assert private.stat().st_mode & 0o777 == 0o700

    def test_postgres_does_not_run_as_root(self, embed: Callable[..., EmbeddedPostgres]) -> None:
        """Only the database drops privileges; PostgreSQL insists on it."""
        postgres = embed()

        postgres.start()

        assert Path(f"/proc/{postmaster(postgres)}").stat().st_uid != 0

    def test_programs_in_a_private_home_are_copied(
        self,
        embed: Callable[..., EmbeddedPostgres],
        directory: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A virtual environment under /root works, and /root stays private."""
        programs = find_binaries()
        assert programs is not None
        home = directory.parent / "home"
        private = copy_wheel(programs, home)
        home.chmod(0o700)
        monkeypatch.setenv("PG_BINDIR", os.fspath(private))
        postgres = embed()

        postgres.start()

        assert not is_reachable(private, embedded._unprivileged_user())
        assert execute(postgres.dsn, "SELECT 1") == [(1,)]
        assert home.stat().st_mode & 0o777 == 0o700


class SupervisionTests(TestCase):
    def setUp(self) -> None:
        name = tempfile.TemporaryDirectory(prefix="homeserver-embedded-")
        self.addCleanup(name.cleanup)
        self._directory = Path(name.name)
        self._directory.chmod(0o711)

    async def test_postmaster_that_exits_is_restarted(self) -> None:
        """The server recovers by itself, without an operator and without a restart of its own."""
        postgres = EmbeddedPostgres(self._directory / "a,b", QUICK)
        supervised = SupervisedPostgres(reactor, postgres)
        await supervised.start()
        supervised.watch()
        dsn = supervised.dsn

        os.kill(postmaster(postgres), signal.SIGKILL)
        begun = time.monotonic()
        answer = await self._wait_for_answer(dsn)
        back_after = time.monotonic() - begun
        pid = postmaster(postgres)
        await supervised.stop()

        self.assertEqual(answer, [(1,)])
        self.assertLess(back_after, 10)
        self.assertFalse(is_alive(pid))

    async def _wait_for_answer(self, dsn: str) -> list[Any]:
        await deferLater(reactor, 0.1)
        while True:
            try:
                return execute(dsn, "SELECT 1")
            except psycopg.OperationalError:
                await deferLater(reactor, 0.1)

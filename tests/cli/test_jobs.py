"""`homeserver jobs`: background jobs, on the command line."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from homeserver.cli.doctor.doctor import examine
from tests.cli.command_line import homeserver
from tests.support.postgres import drop_database, fresh_database

JOBS = """
    INSERT INTO background_jobs
           (kind, arguments, state, progress, done, total, error, created_at, updated_at)
    VALUES ('purge', '{"room":1}', 'done', '{}', 1000, 1000, NULL, 0, 60000),
           ('purge', '{"room":2}', 'running', '{"next":7}', 7, NULL, NULL, 0, 60000),
           ('purge', '{"room":3}', 'failed', '{}', 0, 10, E'Error: a\\nb', 0, 60000)
"""


@pytest.fixture
def dsn() -> Iterator[str]:
    """A database with three jobs."""
    dsn = fresh_database()
    with psycopg.connect(dsn) as connection:
        connection.execute("INSERT INTO server_state VALUES ('server_name', 'a')")
        connection.execute(JOBS)
    yield dsn
    drop_database(dsn)


def config(folder: Path, dsn: str) -> Path:
    """A configuration for the database."""
    path = folder / "homeserver.yaml"
    path.write_text(json.dumps({"server_name": "a", "database": {"dsn": dsn}}))
    return path


def run(folder: Path, dsn: str, *words: str) -> subprocess.CompletedProcess[str]:
    """A command of the group."""
    return homeserver("jobs", *words, "--config", config(folder, dsn))


def test_jobs_are_listed(tmp_path: Path, dsn: str) -> None:
    """An operator sees what the server does, each on one line, the unfinished first."""
    done = run(tmp_path, dsn, "list")

    assert done.stdout.splitlines() == [
        "     2  running    1970-01-01 00:01:00  purge  7",
        r"     3  failed     1970-01-01 00:01:00  purge  0 of 10: Error: a\nb",
        "     1  done       1970-01-01 00:01:00  purge  1,000 of 1,000",
    ]


def test_a_job_is_shown(tmp_path: Path, dsn: str) -> None:
    """An operator sees what exactly a job does, and where it is."""
    done = run(tmp_path, dsn, "show", "2")

    assert 'arguments  {"room":2}' in done.stdout.splitlines()
    assert 'progress   {"next":7}' in done.stdout.splitlines()


def test_a_job_is_cancelled_once(tmp_path: Path, dsn: str) -> None:
    """The command says whether it had an effect, and a cancelled job can continue."""
    done = run(tmp_path, dsn, "cancel", "2")
    again = run(tmp_path, dsn, "cancel", "2")
    retried = run(tmp_path, dsn, "retry", "2")

    assert done.stdout == "Cancelled job 2; what it has done stays done\n"
    assert again.stderr == "Job 2 has ended already: it is cancelled\n"
    assert retried.stdout == "Job 2 continues with its last step when the server runs\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("show", "9"), "There is no job 9\n"),
        (
            ("retry", "1"),
            "Job 1 cannot be continued: it is done, or another job does the same\n",
        ),
    ],
)
def test_mistakes(tmp_path: Path, dsn: str, words: tuple[str, str], message: str) -> None:
    """A mistyped number is noticed."""
    done = run(tmp_path, dsn, *words)

    assert (done.returncode, done.stderr) == (1, message)


def test_the_doctor_names_jobs_that_failed_or_do_not_move(tmp_path: Path, dsn: str) -> None:
    """An operator learns of a job that nobody watches."""
    lines = [str(finding) for finding in examine(config(tmp_path, dsn))]

    assert any(r"job 3: purge failed: Error: a\nb" in line for line in lines)
    assert any("job 2: purge has made no step for an hour" in line for line in lines)

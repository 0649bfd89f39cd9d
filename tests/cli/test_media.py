"""`homeserver media`: usage, quarantine and deletion, on the command line."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.cli.command_line import homeserver
from tests.support.postgres import drop_database, fresh_database

FILES = """
    INSERT INTO media (server_name, media_id, uploader, created_at, used_at, sha256, size,
                       is_public)
    VALUES ('a', 'one', '@bob:a', 0, 0, '\\x01', 1048576, false),
           ('a', 'two', '@bob:a', 0, 0, '\\x02', 1048576, false),
           ('b', 'far', NULL, 0, 0, '\\x03', 524288, false)
"""
USAGE = "INSERT INTO media_usage VALUES ('@bob:a', 2, 2097152)"


@pytest.fixture
def dsn() -> Iterator[str]:
    """A database with two files of a user, and one of another server."""
    dsn = fresh_database()
    with psycopg.connect(dsn) as connection:
        connection.execute(FILES)
        connection.execute(USAGE)
    yield dsn
    drop_database(dsn)


def run(folder: Path, dsn: str, *words: str) -> subprocess.CompletedProcess[str]:
    """A command of the group."""
    config = folder / "homeserver.yaml"
    config.write_text(json.dumps({"server_name": "a", "database": {"dsn": dsn}}))
    return homeserver("media", *words, "--config", config)


def rows(dsn: str, statement: str) -> list[tuple[object, ...]]:
    """The rows of a query."""
    with psycopg.connect(dsn) as connection:
        return connection.execute(statement).fetchall()


def test_usage(tmp_path: Path, dsn: str) -> None:
    """An operator sees who fills the disk."""
    done = run(tmp_path, dsn, "usage")

    assert done.stdout.splitlines() == [
        "         2.0 MiB         2 files  @bob:a",
        "         0.5 MiB         1 files  of other servers, cached",
    ]


def test_a_file_is_quarantined_and_released(tmp_path: Path, dsn: str) -> None:
    """The content is recorded, so that copies of it are not served either."""
    query = "SELECT count(*) FROM quarantined_content"

    done = run(tmp_path, dsn, "quarantine", "mxc://a/one")
    quarantined = rows(dsn, query)
    again = run(tmp_path, dsn, "release", "mxc://a/one")

    assert (done.stdout, quarantined) == ("Quarantined mxc://a/one\n", [(1,)])
    assert (again.stdout, rows(dsn, query)) == ("Released mxc://a/one\n", [(0,)])


def test_all_files_of_a_user(tmp_path: Path, dsn: str) -> None:
    """The files of a spammer are withdrawn at once."""
    done = run(tmp_path, dsn, "quarantine", "--user", "@bob:a")
    deleted = run(tmp_path, dsn, "delete", "--user", "@bob:a")

    assert done.stdout == "Quarantined 2 files of @bob:a\n"
    assert deleted.stdout == "Deleted 2 files of @bob:a\n"
    assert rows(dsn, "SELECT files, bytes FROM media_usage") == [(0, 0)]
    assert rows(dsn, "SELECT media_id FROM media") == [("far",)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["delete", "mxc://a/unknown"], "there is no mxc://a/unknown\n"),
        (["quarantine", "mxc://a/unknown"], "there is no mxc://a/unknown\n"),
        (["delete", "https://a/one"], "'https://a/one' is not an mxc:// URI\n"),
        (["delete"], "name a file by its mxc:// URI, or a user by --user\n"),
    ],
)
def test_mistakes(tmp_path: Path, dsn: str, words: list[str], message: str) -> None:
    """A mistyped address is noticed."""
    done = run(tmp_path, dsn, *words)

    assert (done.returncode, done.stderr) == (1, message)

"""`homeserver search`: the search index, on the command line."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.cli.command_line import homeserver
from tests.support.postgres import drop_database, fresh_database


@pytest.fixture
def dsn() -> Iterator[str]:
    """The database of a server."""
    dsn = fresh_database()
    with psycopg.connect(dsn) as connection:
        connection.execute("INSERT INTO server_state VALUES ('server_name', 'a')")
    yield dsn
    drop_database(dsn)


def rebuild(folder: Path, dsn: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    """The command, with these settings."""
    path = folder / "homeserver.yaml"
    path.write_text(json.dumps({"server_name": "a", "database": {"dsn": dsn}, **settings}))
    return homeserver("search", "rebuild", "--config", path)


def test_the_index_is_rebuilt_once(tmp_path: Path, dsn: str) -> None:
    """An operator who asks twice gets one job."""
    first, second = rebuild(tmp_path, dsn), rebuild(tmp_path, dsn)

    assert first.stdout == second.stdout == "Job 1 rebuilds the index while the server runs\n"
    with psycopg.connect(dsn) as connection:
        jobs = connection.execute("SELECT kind, state FROM background_jobs").fetchall()
    assert jobs == [("search_index", "waiting")]


def test_without_search_there_is_nothing_to_rebuild(tmp_path: Path, dsn: str) -> None:
    """An operator learns why nothing happens."""
    done = rebuild(tmp_path, dsn, search={"enabled": False})

    assert done.returncode == 1
    assert "search.enabled" in done.stderr

"""`homeserver report`: the reports of users, on the command line."""

import json
from pathlib import Path

import psycopg

from tests.cli.command_line import homeserver
from tests.support.postgres import drop_database, fresh_database


def test_reports_are_listed_with_what_they_are_about(tmp_path: Path) -> None:
    """An administrator sees who reported what, each on one line, whatever the users wrote."""
    dsn = fresh_database()
    rows = [
        (0, "@bob:a", "!r:a", "$e", "@eve:a", "shame\n1970 @eve:a"),
        (60_000, "@bob:a", "!r:a", None, None, ""),
        (120_000, "@bob:a", None, None, "@eve:a", "spam"),
    ]
    with psycopg.connect(dsn) as connection:
        connection.cursor().executemany(
            "INSERT INTO reports (reported_ms, reporter, room_id, event_id, user_id, reason)"
            " VALUES (%s, %s, %s, %s, %s, %s)",
            rows,
        )
    config = tmp_path / "homeserver.yaml"
    config.write_text(json.dumps({"server_name": "a", "database": {"dsn": dsn}}))

    done = homeserver("report", "list", "--config", config)

    drop_database(dsn)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        r"1970-01-01 00:00 @bob:a reported event $e of @eve:a in room !r:a: 'shame\n1970 @eve:a'",
        "1970-01-01 00:01 @bob:a reported room !r:a",
        "1970-01-01 00:02 @bob:a reported user @eve:a: 'spam'",
    ]

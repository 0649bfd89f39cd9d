"""Pending invites of an older server: the migration finds the server that sent them."""

from collections.abc import Iterator

import psycopg
import pytest

from homeserver.storage.database.migrate import load_migrations, migrate
from tests.support.postgres import drop_database, empty_database

NAMES = {
    1: "@bob:example.org",
    2: "@alice:there.example:8448",
    3: "!old:made.example",
    4: "!hashofthecreateeventofaroomxxxxxxxxxxxxxxxx",
    5: "!joined:made.example",
    6: "!invited:made.example",
}
MEMBERSHIPS = ((3, "knock", 1), (4, "knock", 1), (5, "join", 1), (6, "invite", 2))


@pytest.fixture
def dsn() -> Iterator[str]:
    dsn = empty_database()
    yield dsn
    drop_database(dsn)


def test_pending_memberships_are_migrated_with_their_server(dsn: str) -> None:
    """An invite is from the inviter's server; for a knock only the room id may name a server."""
    migrations = load_migrations()
    before = [migration for migration in migrations if migration.number < 20]
    migrate(dsn, before)
    with psycopg.connect(dsn) as connection:
        connection.cursor().executemany(
            "INSERT INTO names OVERRIDING SYSTEM VALUE VALUES (%s, %s)", NAMES.items()
        )
        for room, membership, sender in MEMBERSHIPS:
            connection.execute(
                "INSERT INTO events (event, room, depth, type, sender, event_id, json)"
                " VALUES (%s, %s, 1, 1, 1, %s, '{}')",
                (room * 10, room, f"${room}"),
            )
            connection.execute(
                "INSERT INTO memberships (member, room, membership, event, position, sender)"
                " VALUES (1, %s, %s, %s, 1, %s)",
                (room, membership, room * 10, sender),
            )
            connection.execute("INSERT INTO distant_memberships VALUES (%s, 1, '[]')", (room,))

    migrate(dsn, migrations)

    with psycopg.connect(dsn) as connection:
        rows = connection.execute(
            "SELECT room, server, event, size FROM distant_memberships ORDER BY room"
        ).fetchall()
    assert rows == [
        (3, "made.example", 30, 4),
        (4, "", 40, 4),
        (6, "there.example:8448", 60, 4),
    ]

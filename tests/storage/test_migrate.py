"""Migrations: applied once, in order, and never to an incompatible database."""

import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psycopg
import pytest

from homeserver.storage.database.migrate import Migration, MigrationError, load_migrations, migrate
from tests.support.postgres import drop_database, empty_database

FIRST = Migration(1, "first", "-- Why.\nCREATE TABLE one (n int); CREATE TABLE two (n int);")
SECOND = Migration(2, "second", "-- 100 %s of reasons.\nALTER TABLE one ADD COLUMN m int;")


@pytest.fixture
def dsn() -> Iterator[str]:
    dsn = empty_database()
    yield dsn
    drop_database(dsn)


def tables(dsn: str) -> set[str]:
    with psycopg.connect(dsn) as connection:
        rows = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        return {name for (name,) in rows} - {"schema_migrations"}


def test_migrations_are_applied_once_and_in_order(dsn: str) -> None:
    """Every start runs them; only new ones have an effect."""
    first = migrate(dsn, [FIRST])
    both = migrate(dsn, [FIRST, SECOND])
    again = migrate(dsn, [FIRST, SECOND])

    assert (first, both, again) == ([FIRST], [SECOND], [])
    assert tables(dsn) == {"one", "two"}


def test_failed_migration_leaves_nothing_behind(dsn: str) -> None:
    """After an upgrade that fails, the old version still runs."""
    broken = Migration(2, "broken", "CREATE TABLE three (n int); SELECT no_such_function();")

    with pytest.raises(MigrationError, match="0002_broken failed"):
        migrate(dsn, [FIRST, broken])

    assert tables(dsn) == {"one", "two"}
    assert migrate(dsn, [FIRST, SECOND]) == [SECOND]


def test_edited_migration_is_refused(dsn: str) -> None:
    """Two installations of one version must have the same tables."""
    migrate(dsn, [FIRST])

    with pytest.raises(MigrationError, match="other content"):
        migrate(dsn, [msgspec.structs.replace(FIRST, text=FIRST.text + " "), SECOND])


def test_database_of_a_newer_version_is_refused(dsn: str) -> None:
    """An old program would damage data that it does not know."""
    migrate(dsn, [FIRST, SECOND])

    with pytest.raises(MigrationError, match="newer version"):
        migrate(dsn, [FIRST])


def test_processes_that_start_together_migrate_once(dsn: str) -> None:
    """Several workers start at the same moment."""
    applied: list[Migration] = []
    threads = [
        threading.Thread(target=lambda: applied.extend(migrate(dsn, [FIRST, SECOND])))
        for _ in range(4)
    ]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert applied == [FIRST, SECOND]


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        (["0001_a.sql", "0003_c.sql"], "0002 is missing"),
        (["0001_a.sql", "0001_b.sql"], "used twice"),
        (["0002_b.sql"], "0001 is missing"),
        (["1_a.sql"], "NNNN_name"),
        (["0001.sql"], "NNNN_name"),
    ],
)
def test_files_must_be_numbered_without_gap(
    tmp_path: Path, names: list[str], complaint: str
) -> None:
    """A file that was lost in packaging shows at once."""
    for name in names:
        (tmp_path / name).write_text("SELECT 1")

    with pytest.raises(MigrationError, match=complaint):
        load_migrations(tmp_path)


def test_every_migration_opens_with_its_reason() -> None:
    """A reader of the schema in five years learns its reasons."""
    assert all(migration.text.startswith("-- ") for migration in load_migrations())


def test_event_numbers_go_on_above_the_positions_of_before(dsn: str) -> None:
    """Positions used to be event numbers: none that may have been one is used for another event."""
    migrations = load_migrations()
    number = next(each.number for each in migrations if each.name == "event_numbers")
    migrate(dsn, [migration for migration in migrations if migration.number < number])
    with psycopg.connect(dsn) as connection:
        connection.execute("INSERT INTO server_state VALUES ('reserved_positions', '4000000')")

    migrate(dsn, migrations)

    with psycopg.connect(dsn) as connection:
        rows = connection.execute("SELECT key, value FROM server_state ORDER BY key").fetchall()
    assert rows == [("reserved_event_numbers", "4000000"), ("reserved_positions", "4000000")]

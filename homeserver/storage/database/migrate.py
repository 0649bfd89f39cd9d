"""Migrations: numbered SQL files, each applied once, in order, under a lock.

A file `NNNN_name.sql` opens with its reason and is never edited after release. The table
`schema_migrations`, which this module owns, records number, name and checksum of what was applied.
A database that is newer than this program, or was created by other files, is refused with a message
that says what to do; it is never repaired by guessing.

Each file runs in a transaction of its own together with its record, so that a failed or interrupted
one changes nothing.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import psycopg

from homeserver.concurrency.thread_pools import run_in_own_thread
from homeserver.storage.database.workers import refuse_while_in_use

DIRECTORY = Path(__file__).parent / "migrations"
LOCK = 0x686F6D65  # an arbitrary number that is not used for other locks in the database


class MigrationError(Exception):
    """The schema cannot be brought up to date; the message says why and what to do."""


class Migration(msgspec.Struct, frozen=True):
    """One file: `number` orders it, `checksum` shows whether it was edited."""

    number: int
    name: str
    text: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()


def load_migrations(directory: Path = DIRECTORY) -> list[Migration]:
    """The files of a directory, by number; raises `MigrationError` for a gap or a duplicate."""
    migrations = []
    for path in sorted(directory.glob("*.sql")):
        number, _, name = path.stem.partition("_")
        if len(number) != 4 or not number.isdecimal() or not name:
            raise MigrationError(f"{path.name}: a migration is named NNNN_name.sql")
        migrations.append(Migration(int(number), name, path.read_text(encoding="utf-8")))
    for expected, migration in enumerate(migrations, start=1):
        if migration.number != expected:
            raise MigrationError(
                f"migration {expected:04} is missing, or a number is used twice "
                f"(found {migration.number:04}_{migration.name}.sql in its place)"
            )
    return migrations


def migrate(dsn: str, migrations: Sequence[Migration] | None = None) -> list[Migration]:
    """Bring the schema up to date and return the migrations that were applied; blocks.

    Several processes may call it at once: one migrates, the others wait for it. Raises
    `MigrationError`, `AnotherProcess` if the schema would change under a server that runs, or
    `psycopg.Error` if the database fails.
    """
    wanted = load_migrations() if migrations is None else list(migrations)
    try:
        # PgBouncer in transaction mode knows no prepared statements.
        connected = psycopg.connect(dsn, autocommit=True, prepare_threshold=None)
    except psycopg.ProgrammingError:
        # psycopg's message may quote the password.
        raise MigrationError("database.dsn is not a connection string of PostgreSQL") from None
    with connected as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", (LOCK,))
        # Closing the connection releases the lock.
        applied = _read_applied(connection)
        _check_history(applied, wanted)
        missing = wanted[len(applied) :]
        if missing:
            refuse_while_in_use(connection)
        for migration in missing:
            _apply(connection, migration)
    return missing


async def migrate_in_thread(reactor: Any, dsn: str) -> list[Migration]:
    """`migrate`, without blocking the reactor."""
    return await run_in_own_thread(reactor, "migration", migrate, dsn)


def _read_applied(connection: psycopg.Connection[Any]) -> list[tuple[int, str, str]]:
    connection.execute(
        """
        CREATE TABLE IF NOT EXISTS schema_migrations (
            number     int         PRIMARY KEY,
            name       text        NOT NULL,
            checksum   text        NOT NULL,
            applied_at timestamptz NOT NULL DEFAULT now()
        )
        """
    )
    return connection.execute(
        "SELECT number, name, checksum FROM schema_migrations ORDER BY number"
    ).fetchall()


def _check_history(applied: Sequence[tuple[int, str, str]], wanted: Sequence[Migration]) -> None:
    """Raise `MigrationError` unless the applied migrations are a prefix of the wanted ones."""
    for place, (number, name, checksum) in enumerate(applied):
        if place >= len(wanted):
            raise MigrationError(
                f"The database has migration {number:04}_{name}, which this version of the server "
                "does not know: it was used by a newer version. Run that version, or restore a "
                "backup from before the upgrade."
            )
        file = wanted[place]
        if (number, checksum) != (file.number, file.checksum):
            raise MigrationError(
                f"Migration {number:04}_{name} was applied to the database with other content than "
                f"{file.number:04}_{file.name}.sql has now. Released migrations are never edited: "
                "install the server again, or restore the file."
            )


def _apply(connection: psycopg.Connection[Any], migration: Migration) -> None:
    try:
        with connection.transaction():
            connection.execute(migration.text.encode())
            connection.execute(
                "INSERT INTO schema_migrations (number, name, checksum) VALUES (%s, %s, %s)",
                (migration.number, migration.name, migration.checksum),
            )
    except psycopg.Error as error:
        raise MigrationError(
            f"Migration {migration.number:04}_{migration.name} failed: {error}"
        ) from error

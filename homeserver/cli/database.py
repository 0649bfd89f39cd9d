"""The database of a command: that of the running server, or started for the command.

The embedded PostgreSQL of a running server is used if there is one; else it is started, and stopped
afterwards. As at a start of the server, the schema is first created or migrated, and the database
must belong to this server.
"""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg

from homeserver.cli.errors import CommandError
from homeserver.cli.running_postgres import find_running
from homeserver.concurrency.thread_pools import run_in_own_thread
from homeserver.config.settings import Settings
from homeserver.storage.database.database import Database
from homeserver.storage.database.embedded import EmbeddedPostgres, EmbeddedPostgresError
from homeserver.storage.database.migrate import MigrationError, migrate_in_thread
from homeserver.storage.database.server_state import WrongServer, claim_server_name
from homeserver.storage.database.supervised_postgres import SupervisedPostgres
from homeserver.storage.database.workers import AnotherProcess

CONNECTIONS = 2


@asynccontextmanager
async def open_database(reactor: Any, settings: Settings) -> AsyncIterator[Database]:
    """The server's database, ready for use. Raises `CommandError`."""
    started: SupervisedPostgres | None = None
    try:
        dsn = settings.database.dsn or await run_in_own_thread(
            reactor, "running PostgreSQL", find_running, settings.postgres_dir
        )
        if dsn is None:
            embedded = EmbeddedPostgres(settings.postgres_dir)
            started = SupervisedPostgres(reactor, embedded)
            await _start(started, embedded)
            dsn = started.dsn
        await migrate_in_thread(reactor, dsn)
        prepare = settings.database.prepared_statements
        db = Database(reactor, dsn, pool_size=CONNECTIONS, prepare=prepare)
        await db.open()
        try:
            await db.run(claim_server_name, settings.server_name)
            yield db
        finally:
            await db.close()
    except (EmbeddedPostgresError, MigrationError, WrongServer, AnotherProcess) as error:
        raise CommandError(str(error)) from None
    except psycopg.OperationalError as error:
        raise CommandError(f"cannot use the database: {error}") from None
    finally:
        if started is not None:
            await started.stop()


async def _start(supervised: SupervisedPostgres, embedded: EmbeddedPostgres) -> None:
    try:
        if embedded.is_new:
            message = f"Creating the database in {embedded.directory}, once"
            print(message, file=sys.stderr, flush=True)
        await supervised.start()
    except OSError as error:
        raise CommandError(
            f"cannot use the database in {embedded.directory}: {error.strerror}. Is this the user"
            " that the server runs as?"
        ) from None

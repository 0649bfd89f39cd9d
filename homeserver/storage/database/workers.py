"""Workers: the processes that write to the database, and the fence around their commits.

Owns the tables `workers`, `leases` and `shards` (migrations/0023_workers.sql).

A process that starts becomes a worker. It keeps its lease by renewing it, by the database's clock.
A process that finds an expired lease, or knows that its owner has ended, may take over: the row in
`workers` is marked, and its shards get a new owner. From then on no commit of the former worker
succeeds, whatever it still believes, because each one reads and locks that row (`FENCE`). A commit
in progress holds the lock, so it comes before the take-over.

One process owns all shards; another one is refused while the first is alive.
"""

import time
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

import msgspec
import psycopg
from psycopg.rows import class_row

from homeserver.storage.database.process_identity import ProcessIdentity, has_ended, runs_here
from homeserver.storage.database.reactor_connection import ReactorConnection

LEASE_SECONDS = 3.0
LOOK_AGAIN_SECONDS = 0.1  # at a lease that has neither expired nor been renewed
LOCK_SECONDS = 1.0  # for a commit of the former worker to end
END_SECONDS = 5.0  # for its connections to be closed
KEPT_DAYS = 30  # rows of processes that have ended
LOCK = 0x776F726B  # an arbitrary number that is not used for other locks in the database

FENCE = """
    fence AS MATERIALIZED (
        SELECT 1 / count(*) FROM (SELECT FROM workers WHERE worker = {worker} AND is_alive
                                     FOR SHARE) AS alive)
"""
"""A part of a `WITH` that fails unless a worker is alive: with `FENCED`, a division by zero.

The lock is held until the commit. A statement that waited for it reads the row again, as it is
`READ COMMITTED`.
"""
FENCED = psycopg.errors.DivisionByZero.sqlstate


LIVING = """
    SELECT worker, host, machine, pid, pid_began, application_name,
           now() - started AS age, until, until <= now() AS is_expired
      FROM workers
      JOIN leases USING (worker)
     WHERE is_alive
"""


class AnotherProcess(Exception):
    """Another process uses the database; the message names it."""


class Worker(msgspec.Struct, frozen=True):
    """A worker that was not marked as ended; `until` is the end of its lease."""

    worker: int
    host: str
    machine: str
    pid: int
    pid_began: int
    application_name: str
    age: timedelta
    until: datetime
    is_expired: bool

    @property
    def has_ended(self) -> bool:
        """Whether its database can be taken over."""
        return self.is_expired or has_ended(self.machine, self.pid, self.pid_began)

    @property
    def is_here(self) -> bool:
        """Whether the process runs on this machine, and its `pid` names it here."""
        return runs_here(self.machine, self.pid, self.pid_began)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, started {_duration(self.age)} ago"


def claim_database(dsn: str, process: ProcessIdentity) -> tuple[int, Worker | None]:
    """Make this process the one worker of a database; blocks, for `LEASE_SECONDS` at most.

    Returns its number, and the worker that it took the database over from, if that one ended
    without giving it back. Raises `AnotherProcess` if another process is alive.
    """
    # PgBouncer in transaction mode knows no prepared statements.
    with psycopg.connect(dsn, autocommit=True, prepare_threshold=None) as connection:
        while True:
            former = _wait_for_end(connection)
            number = _take_over(connection, former, process)
            if number is not None:
                return number, former


def refuse_while_in_use(connection: psycopg.Connection[Any]) -> None:
    """Raise `AnotherProcess` if a process is alive that uses the database; blocks as above.

    A database whose schema has no workers yet is not in use.
    """
    row = connection.execute("SELECT to_regclass('workers') IS NULL").fetchone()
    if row is None or not row[0]:
        _wait_for_end(connection)


def living_worker(connection: psycopg.Connection[Any]) -> Worker | None:
    """The worker that owns the database; it may have ended without giving the database back."""
    with connection.cursor(row_factory=class_row(Worker)) as cursor:
        cursor.execute(LIVING)
        return cursor.fetchone()


async def find_living_worker(db: psycopg.AsyncConnection[Any]) -> Worker | None:
    """The same, on a connection that the reactor drives."""
    async with db.cursor(row_factory=class_row(Worker)) as cursor:
        await cursor.execute(LIVING)
        return await cursor.fetchone()


async def renew_lease(db: ReactorConnection, worker: int) -> bool:
    """Renew the lease of a worker; returns whether it is alive still."""
    cursor = await db.execute(
        """
        UPDATE leases SET until = now() + make_interval(secs => %(seconds)s)
         WHERE worker = %(worker)s
           AND EXISTS (SELECT FROM workers WHERE worker = %(worker)s AND is_alive)
        """,
        {"worker": worker, "seconds": LEASE_SECONDS},
    )
    return cursor.rowcount == 1


async def is_alive(db: ReactorConnection, worker: int) -> bool:
    """Whether a worker was neither replaced, nor has given the database back."""
    cursor = await db.execute("SELECT FROM workers WHERE worker = %s AND is_alive", (worker,))
    return cursor.rowcount == 1


async def give_database_back(db: ReactorConnection, worker: int) -> None:
    """End a worker: the next process need not wait for the lease to expire."""
    await db.execute("UPDATE workers SET is_alive = false WHERE worker = %s", (worker,))


def _wait_for_end(connection: psycopg.Connection[Any]) -> Worker | None:
    """Wait until the living worker has ended, and return it; `None` if there is none.

    Raises `AnotherProcess` as soon as it renews its lease.
    """
    first = living_worker(connection)
    found = first
    while found is not None and first is not None and not found.has_ended:
        if (found.worker, found.until) != (first.worker, first.until):
            raise AnotherProcess(
                f"the database is in use by another homeserver: {found}. "
                "A database serves one process; stop that one first."
            )
        time.sleep(LOOK_AGAIN_SECONDS)
        found = living_worker(connection)
    return found


def _take_over(
    connection: psycopg.Connection[Any], former: Worker | None, process: ProcessIdentity
) -> int | None:
    """Replace a worker that has ended; `None` if somebody else was faster, or it has to end yet."""
    try:
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
            connection.execute(f"SET LOCAL lock_timeout = '{LOCK_SECONDS:g}s'".encode())
            if former is not None:
                connection.execute(
                    "UPDATE workers SET is_alive = false WHERE worker = %s", (former.worker,)
                )
            if living_worker(connection) is not None:
                return None
            number = _add_worker(connection, process)
    except psycopg.errors.LockNotAvailable:
        # A commit of a process that has ended: its connection hangs.
        assert former is not None
        _end_connections(connection, former)
        return None
    if former is not None:
        _end_connections(connection, former)
    return number


def _add_worker(connection: psycopg.Connection[Any], process: ProcessIdentity) -> int:
    row = connection.execute(
        """
        INSERT INTO workers (slot, host, machine, pid, pid_began, version, application_name)
        VALUES (0, %s, %s, %s, %s, %s, %s)
        RETURNING worker
        """,
        (
            process.host,
            process.machine,
            process.pid,
            process.pid_began,
            process.version,
            process.application_name,
        ),
    ).fetchone()
    assert row is not None, "an insert returns its row"
    number = int(row[0])
    connection.execute(
        "INSERT INTO leases (worker, until) VALUES (%s, now() + make_interval(secs => %s))",
        (number, LEASE_SECONDS),
    )
    connection.execute("UPDATE shards SET worker = %s, epoch = epoch + 1", (number,))
    connection.execute(
        "DELETE FROM workers WHERE NOT is_alive AND started < now() - make_interval(days => %s)",
        (KEPT_DAYS,),
    )
    return number


def _end_connections(connection: psycopg.Connection[Any], former: Worker) -> None:
    """Close the connections of a worker that was replaced: its transactions are rolled back.

    If this role may not do that, or they do not end, the fence still keeps its log from writing.
    """
    deadline = time.monotonic() + END_SECONDS
    with suppress(psycopg.errors.InsufficientPrivilege):
        while time.monotonic() < deadline:
            ending = connection.execute(
                """
                SELECT pg_terminate_backend(pid)
                  FROM pg_stat_activity
                 WHERE application_name = %s AND datname = current_database()
                """,
                (former.application_name,),
            ).fetchall()
            if not ending:
                return
            time.sleep(0.02)


def _duration(age: timedelta) -> str:
    """An age in the unit that suits it."""
    seconds = max(0, int(age.total_seconds()))
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds} seconds"

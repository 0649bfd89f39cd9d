"""Background jobs: what is to be done in small steps, and how far it is.

Owns the table `background_jobs` (migrations/0036_background_jobs.sql), one row per job.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
import psycopg

from homeserver.storage.database.database import Connection

MAX_UNFINISHED = 1_000
COLUMNS = "job_id, kind, arguments, state, progress, done, total, error, created_at, updated_at"
UNFINISHED = "state IN ('waiting', 'running')"


class Job(msgspec.Struct, frozen=True):
    """A job as it is stored; times are in ms.

    `state` is "waiting", "running", "done", "failed" or "cancelled". `progress` is where the next
    step begins; empty at first. `done` of `total` is for people; `total` may be unknown.
    """

    job_id: int
    kind: str
    arguments: dict[str, Any]
    state: str
    progress: dict[str, Any]
    done: int
    total: int | None
    error: str | None
    created_at: int
    updated_at: int


class Progress(msgspec.Struct, frozen=True):
    """What a step has come to: `state` is the `Job.progress` of the next one.

    A job that waits for something else makes its next step after `pause` seconds.
    """

    state: dict[str, Any]
    done: int
    total: int | None = None
    is_finished: bool = False
    pause: float = 0.0


async def insert_job(
    db: Connection, kind: str, arguments: dict[str, Any], now_ms: int
) -> int | None:
    """Store a job; returns its id, that of an unfinished one with the same arguments if there is
    one, or `None` if too many are unfinished.

    Jobs without arguments are always taken: they are the server's own, one of each kind.
    """
    cursor = await db.execute(
        f"""
        INSERT INTO background_jobs (kind, arguments, state, created_at, updated_at)
        SELECT %(kind)s, %(arguments)s, 'waiting', %(now)s, %(now)s
         WHERE (SELECT count(*) FROM background_jobs WHERE {UNFINISHED}) < %(most)s
            OR %(arguments)s::text = '{{}}'
            OR EXISTS (SELECT FROM background_jobs
                        WHERE kind = %(kind)s AND md5(arguments) = md5(%(arguments)s::text)
                          AND {UNFINISHED})
            ON CONFLICT (kind, md5(arguments)) WHERE {UNFINISHED}
            DO UPDATE SET kind = EXCLUDED.kind
        RETURNING job_id
        """,
        {"kind": kind, "arguments": _json(arguments), "now": now_ms, "most": MAX_UNFINISHED},
    )
    row = await cursor.fetchone()
    return row[0] if row else None


async def take_job(
    db: Connection, kinds: Sequence[str], besides: Sequence[int], now_ms: int
) -> Job | None:
    """The unfinished job of these kinds whose last step was longest ago, marked as running.

    Jobs with ids in `besides` are left out.
    """
    return await _job(
        db,
        f"""
        UPDATE background_jobs SET state = 'running', updated_at = %s
         WHERE job_id = (
               SELECT job_id
                 FROM background_jobs
                WHERE {UNFINISHED} AND kind = ANY(%s) AND job_id <> ALL(%s::int8[])
                ORDER BY updated_at, job_id
                LIMIT 1)
           AND {UNFINISHED}
        RETURNING {COLUMNS}
        """,
        (now_ms, list(kinds), list(besides)),
    )


async def lock_job(db: Connection, job_id: int) -> Job | None:
    """A job in its present state, if it is unfinished; it is locked until the transaction ends."""
    return await _job(
        db,
        f"SELECT {COLUMNS} FROM background_jobs WHERE job_id = %s AND {UNFINISHED} FOR UPDATE",
        (job_id,),
    )


async def save_progress(db: Connection, job_id: int, progress: Progress, now_ms: int) -> None:
    """Store what a step has come to, unless the job was cancelled meanwhile."""
    await db.execute(
        f"""
        UPDATE background_jobs
           SET state = %s, progress = %s, done = %s, total = %s, error = NULL, updated_at = %s
         WHERE job_id = %s AND {UNFINISHED}
        """,
        (
            "done" if progress.is_finished else "running",
            _json(progress.state),
            progress.done,
            progress.total,
            now_ms,
            job_id,
        ),
    )


async def fail_job(db: Connection, job_id: int, error: str, now_ms: int, *, is_last: bool) -> None:
    """Record why a step failed; after the last attempt the job has failed."""
    await db.execute(
        f"""
        UPDATE background_jobs SET state = %s, error = %s, updated_at = %s
         WHERE job_id = %s AND {UNFINISHED}
        """,
        ("failed" if is_last else "running", error, now_ms, job_id),
    )


async def cancel_job(db: Connection, job_id: int, now_ms: int) -> bool:
    """End an unfinished job after its present step; false if there is none with this id."""
    cursor = await db.execute(
        f"""
        UPDATE background_jobs SET state = 'cancelled', updated_at = %s
         WHERE job_id = %s AND {UNFINISHED}
        """,
        (now_ms, job_id),
    )
    return cursor.rowcount > 0


async def retry_job(db: Connection, job_id: int, now_ms: int) -> bool:
    """Have a job that failed or was cancelled continue.

    False if there is none with this id, or if an unfinished one does the same.
    """
    cursor = await db.execute(
        f"""
        UPDATE background_jobs AS job SET state = 'waiting', updated_at = %s
         WHERE job_id = %s AND state IN ('failed', 'cancelled') AND NOT EXISTS (
               SELECT FROM background_jobs AS other
                WHERE other.kind = job.kind AND md5(other.arguments) = md5(job.arguments)
                  AND other.{UNFINISHED})
        """,
        (now_ms, job_id),
    )
    return cursor.rowcount > 0


async def find_job(db: Connection, job_id: int) -> Job | None:
    """A job by its id."""
    return await _job(db, f"SELECT {COLUMNS} FROM background_jobs WHERE job_id = %s", (job_id,))


async def last_created(db: Connection, kind: str) -> int | None:
    """When the last job of a kind was created, in ms, as far as it is still listed."""
    cursor = await db.execute(
        "SELECT max(created_at) FROM background_jobs WHERE kind = %s", (kind,)
    )
    row = await cursor.fetchone()
    return row[0] if row else None


async def unfinished_jobs(db: Connection, kind: str) -> list[Job]:
    """All unfinished jobs of a kind."""
    cursor = await db.execute(
        f"SELECT {COLUMNS} FROM background_jobs WHERE kind = %s AND {UNFINISHED}", (kind,)
    )
    return [_decode(row) for row in await cursor.fetchall()]


async def newest_jobs(db: Connection, limit: int) -> list[Job]:
    """The jobs, the newest first, after the unfinished ones."""
    cursor = await db.execute(
        f"""
        SELECT {COLUMNS} FROM background_jobs ORDER BY {UNFINISHED} DESC, job_id DESC LIMIT %s
        """,
        (limit,),
    )
    return [_decode(row) for row in await cursor.fetchall()]


async def delete_finished_jobs(db: Connection, before_ms: int, limit: int) -> int:
    """Delete jobs that ended before a time; returns their number, at most `limit`."""
    cursor = await db.execute(
        f"""
        DELETE FROM background_jobs
         WHERE job_id IN (
               SELECT job_id
                 FROM background_jobs
                WHERE NOT {UNFINISHED} AND updated_at < %s
                LIMIT %s)
        """,
        (before_ms, limit),
    )
    return cursor.rowcount


def jobs_to_check(connection: psycopg.Connection[Any], stuck_before_ms: int) -> list[Job]:
    """Jobs that failed, and unfinished ones without a step since a time; blocks."""
    rows = connection.execute(
        f"""
        SELECT {COLUMNS}
          FROM background_jobs
         WHERE state = 'failed' OR ({UNFINISHED} AND updated_at < %s)
         ORDER BY job_id DESC
         LIMIT 20
        """,
        (stuck_before_ms,),
    )
    return [_decode(row) for row in rows]


async def _job(db: Connection, statement: str, parameters: tuple[Any, ...]) -> Job | None:
    cursor = await db.execute(statement, parameters)
    row = await cursor.fetchone()
    return _decode(row) if row else None


def _decode(row: tuple[Any, ...]) -> Job:
    job_id, kind, arguments, state, progress, *rest = row
    return Job(
        job_id, kind, msgspec.json.decode(arguments), state, msgspec.json.decode(progress), *rest
    )


def _json(values: dict[str, Any]) -> str:
    """JSON in one form, so that equal arguments are equal texts."""
    return msgspec.json.encode(values, order="deterministic").decode()

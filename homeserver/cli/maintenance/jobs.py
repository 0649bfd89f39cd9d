"""`homeserver jobs`: what the server does in the background, on a running or a stopped server."""

import argparse
import time
from datetime import UTC, datetime
from typing import Any

import msgspec

from homeserver.cli.configuration import load_installed
from homeserver.cli.database import open_database
from homeserver.cli.errors import CommandError
from homeserver.cli.plain_text import plain
from homeserver.cli.reactor import run_in_reactor
from homeserver.config.settings import Settings
from homeserver.storage.database.background_jobs import (
    Job,
    cancel_job,
    find_job,
    newest_jobs,
    retry_job,
)
from homeserver.storage.database.database import Database

SHOWN_JOBS = 100


def jobs(options: argparse.Namespace) -> int:
    """Do what `options.action` names; returns the exit status."""
    settings = load_installed(options.config)
    for line in run_in_reactor(lambda reactor: _lines(reactor, settings, options)):
        print(line)
    return 0


async def _lines(reactor: Any, settings: Settings, options: argparse.Namespace) -> list[str]:
    async with open_database(reactor, settings) as db:
        if options.action == "list":
            found = await db.run(newest_jobs, SHOWN_JOBS)
            return [summary_of(job) for job in found] or ["There are no jobs."]
        job = await db.run(find_job, options.job)
        if job is None:
            raise CommandError(f"There is no job {options.job}")
        if options.action == "show":
            return list(details_of(job))
        return [await _change(db, options.action, job)]


async def _change(db: Database, action: str, job: Job) -> str:
    now = int(time.time() * 1000)
    if action == "cancel":
        if await db.run(cancel_job, job.job_id, now):
            return f"Cancelled job {job.job_id}; what it has done stays done"
        raise CommandError(f"Job {job.job_id} has ended already: it is {job.state}")
    if await db.run(retry_job, job.job_id, now):
        return f"Job {job.job_id} continues with its last step when the server runs"
    raise CommandError(
        f"Job {job.job_id} cannot be continued: it is {job.state}, or another job does the same"
    )


def summary_of(job: Job) -> str:
    """A job on one line."""
    progress = f"{job.done:,}" if job.total is None else f"{job.done:,} of {job.total:,}"
    line = f"{job.job_id:>6}  {job.state:<9}  {_time(job.updated_at)}  {plain(job.kind)}"
    error = f": {plain(job.error)}" if job.error else ""
    return f"{line}  {progress}{error}"


def details_of(job: Job) -> list[str]:
    """All that is known of a job."""
    fields = {
        "job": str(job.job_id),
        "kind": job.kind,
        "state": job.state,
        "created": _time(job.created_at),
        "updated": _time(job.updated_at),
        "done": f"{job.done:,}",
        "total": "unknown" if job.total is None else f"{job.total:,}",
        "arguments": msgspec.json.encode(job.arguments).decode(),
        "progress": msgspec.json.encode(job.progress).decode(),
        "error": job.error or "none",
    }
    return [f"{name:<10} {plain(value)}" for name, value in fields.items()]


def _time(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, tz=UTC):%Y-%m-%d %H:%M:%S}"

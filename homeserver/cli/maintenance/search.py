"""`homeserver search`: the index of the server-side search, of a running or a stopped server."""

import argparse
import time
from typing import Any

from homeserver.cli.configuration import load_installed
from homeserver.cli.database import open_database
from homeserver.cli.errors import CommandError
from homeserver.cli.reactor import run_in_reactor
from homeserver.config.settings import Settings
from homeserver.search.index_job import JOB
from homeserver.storage.database.background_jobs import insert_job


def search(options: argparse.Namespace) -> int:
    """Have the index rebuilt; returns the exit status."""
    settings = load_installed(options.config)
    if not settings.search.enabled:
        raise CommandError("There is no index: the setting search.enabled is false")
    job_id = run_in_reactor(lambda reactor: _rebuild(reactor, settings))
    if job_id is None:
        raise CommandError("Too many background jobs wait already")
    print(f"Job {job_id} rebuilds the index while the server runs")
    return 0


async def _rebuild(reactor: Any, settings: Settings) -> int | None:
    async with open_database(reactor, settings) as db:
        return await db.run(insert_job, JOB, {}, int(time.time() * 1000))

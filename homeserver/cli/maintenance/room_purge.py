"""`homeserver room purge-history | delete | unblock`, on a running or a stopped server.

What takes long is a job, which the command creates, and which the server does while it runs.
"""

import argparse
import time
from datetime import timedelta
from typing import Any

from homeserver.cli.configuration import load_installed
from homeserver.cli.database import open_database
from homeserver.cli.errors import CommandError
from homeserver.cli.plain_text import plain
from homeserver.cli.reactor import run_in_reactor
from homeserver.config.hints import homeserver_command
from homeserver.config.settings import Settings
from homeserver.rooms.diagnostics.room_inspection import RoomInspection
from homeserver.rooms.retention.history_purge import PURGE_HISTORY, HistoryPurgeRequest
from homeserver.rooms.retention.room_deletion import DELETE_ROOM, deletion_arguments
from homeserver.storage.database.background_jobs import insert_job
from homeserver.storage.database.database import Database
from homeserver.storage.retention.blocked_rooms import unblock_room
from homeserver.storage.retention.purged_history import place_in_history
from homeserver.storage.rooms.names import Names


def purge_history(options: argparse.Namespace) -> int:
    """Create the job of a purge; returns the exit status."""
    settings = load_installed(options.config)
    job_id = run_in_reactor(lambda reactor: _purge_history(reactor, settings, options))
    _print_job(job_id, options)
    return 0


async def _purge_history(reactor: Any, settings: Settings, options: argparse.Namespace) -> int:
    async with open_database(reactor, settings) as db:
        row = await RoomInspection(db).find(options.room)
        if row is None:
            raise CommandError(f"This server does not know the room {plain(options.room)}")
        before = None
        if options.before_event is not None:
            before = await db.run(place_in_history, row.room, options.before_event)
            if before is None:
                raise CommandError(f"The room has no event {plain(options.before_event)}")
        older_than = None if options.older_than is None else _now_ms() - _ms(options.older_than)
        request = HistoryPurgeRequest(
            row.room, options.room, before, older_than, options.with_local
        )
        return await _create(db, PURGE_HISTORY, request.arguments())


def delete_room(options: argparse.Namespace) -> int:
    """Create the job that deletes a room; returns the exit status."""
    settings = load_installed(options.config)
    job_id = run_in_reactor(lambda reactor: _delete_room(reactor, settings, options))
    _print_job(job_id, options)
    return 0


async def _delete_room(reactor: Any, settings: Settings, options: argparse.Namespace) -> int:
    async with open_database(reactor, settings) as db:
        row = await RoomInspection(db).find(options.room)
        if row is None:
            raise CommandError(f"This server does not know the room {plain(options.room)}")
        room_id = await Names(db).name(row.room)
        arguments = deletion_arguments(row.room, room_id, block=options.block)
        return await _create(db, DELETE_ROOM, arguments)


def unblock(options: argparse.Namespace) -> int:
    """Unblock a room; returns the exit status."""
    settings = load_installed(options.config)
    if not run_in_reactor(lambda reactor: _unblock(reactor, settings, options.room)):
        raise CommandError(f"The room {plain(options.room)} is not blocked")
    print(f"Unblocked {plain(options.room)}")
    return 0


async def _unblock(reactor: Any, settings: Settings, room_id: str) -> bool:
    async with open_database(reactor, settings) as db:
        return await db.run(unblock_room, room_id)


async def _create(db: Database, kind: str, arguments: dict[str, Any]) -> int:
    job_id = await db.run(insert_job, kind, arguments, _now_ms())
    if job_id is None:
        raise CommandError("Too many jobs wait; cancel some, or try again later")
    return job_id


def _print_job(job_id: int, options: argparse.Namespace) -> None:
    show = homeserver_command("jobs", "show", str(job_id), config=options.config)
    print(f"Job {job_id} begins within seconds, or when the server runs. To follow it: {show}")


def _now_ms() -> int:
    return int(time.time() * 1000)


def _ms(duration: timedelta) -> int:
    return int(duration.total_seconds() * 1000)

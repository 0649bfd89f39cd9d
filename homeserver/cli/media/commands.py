"""`homeserver media`: what users have stored, and files that are withdrawn, while the server runs.

A command changes the database alone. The running server serves a deleted or quarantined file no
more from then on, and deletes its content within a day if no other file has the same.
"""

import argparse
import time
from typing import Any

from homeserver.cli.configuration import load_installed
from homeserver.cli.database import open_database
from homeserver.cli.errors import CommandError
from homeserver.cli.reactor import run_in_reactor
from homeserver.config.settings import Settings
from homeserver.protocol.media.media_ids import MediaId
from homeserver.storage.database.database import Database
from homeserver.storage.media.media import (
    delete_media,
    end_quarantine,
    largest_usage,
    media_of,
    quarantine_media,
    remote_usage,
)

SHOWN_USERS = 20
AT_ONCE = 500  # files of a user that are listed by one query
MEBIBYTE = 1_048_576
DONE = {"quarantine": "Quarantined", "release": "Released", "delete": "Deleted"}


def media(options: argparse.Namespace) -> int:
    """Do what `options.action` names; returns the exit status."""
    settings = load_installed(options.config)
    name = None if options.action == "usage" or options.user else _name_in(options.uri)
    lines = run_in_reactor(lambda reactor: _with_database(reactor, settings, options, name))
    for line in lines:
        print(line)
    return 0


def _name_in(uri: str | None) -> MediaId:
    if uri is None:
        raise CommandError("name a file by its mxc:// URI, or a user by --user")
    try:
        return MediaId.parse(uri)
    except ValueError as error:
        raise CommandError(str(error)) from None


async def _with_database(
    reactor: Any, settings: Settings, options: argparse.Namespace, name: MediaId | None
) -> list[str]:
    async with open_database(reactor, settings) as db:
        if options.action == "usage":
            return await _usage(db)
        if name is not None:
            if not await _change(db, options.action, name, settings.server_name):
                raise CommandError(f"there is no {name}")
            return [f"{DONE[options.action]} {name}"]
        return await _change_all(db, options.action, options.user, settings.server_name)


async def _usage(db: Database) -> list[str]:
    remote = await db.run(remote_usage)
    lines = [
        f"{usage.bytes / MEBIBYTE:12,.1f} MiB  {usage.files:8,} files  {user}"
        for user, usage in await db.run(largest_usage, SHOWN_USERS)
    ]
    cached = f"{remote.bytes / MEBIBYTE:12,.1f} MiB  {remote.files:8,} files"
    return [*lines, f"{cached}  of other servers, cached"]


async def _change(db: Database, action: str, name: MediaId, server_name: str) -> bool:
    """Change one file; false if there is no such file."""
    if action == "quarantine":
        now = int(time.time() * 1000)
        is_remote = name.server_name != server_name
        return await db.run(quarantine_media, name, now, may_be_unknown=is_remote)
    if action == "release":
        return await db.run(end_quarantine, name)
    was_there, _ = await db.run(delete_media, name)
    return was_there


async def _change_all(db: Database, action: str, user_id: str, server_name: str) -> list[str]:
    """Change all files of a user."""
    changed, last = 0, ""
    while found := await db.run(media_of, user_id, last, AT_ONCE):
        for media_id in found:
            changed += await _change(db, action, MediaId(server_name, media_id), server_name)
        last = found[-1]
    return [f"{DONE[action]} {changed} files of {user_id}"]

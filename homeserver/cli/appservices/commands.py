"""`homeserver appservice list | show | ping | skip | replay`, on a running or a stopped server.

They are those of the files; a running server has read them at its start, or at the last SIGHUP.

Spec: https://spec.matrix.org/v1.19/application-service-api/#registration
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from appservices.transactions.appservice_transactions import reader_name
from homeserver.cli.appservices.moves import move
from homeserver.cli.appservices.reachability import Reachability
from homeserver.cli.configuration import load_installed
from homeserver.cli.database import open_database
from homeserver.cli.errors import CommandError
from homeserver.cli.plain_text import plain
from homeserver.cli.reactor import run_in_reactor
from homeserver.config.appservices import load_registration_files
from homeserver.config.settings import Settings
from homeserver.protocol.appservices.appservice import Appservice
from homeserver.storage.accounts.users import count_by_appservice, users_of_appservice
from homeserver.storage.appservices.transactions import last_transaction
from homeserver.storage.database.reader_positions import reader_position
from homeserver.streams.positions import position_at, seconds_at

MAX_USERS = 20  # that are shown
Registered = Sequence[tuple[Path, Appservice]]


def appservice(options: argparse.Namespace) -> int:
    """Do what `options.action` names; returns the exit status."""
    settings = load_installed(options.config)
    registered = registrations(settings)
    if options.action == "list":
        return _print(run_in_reactor(lambda reactor: _listing(reactor, settings, registered)))
    path, found = _find(registered, options.appservice)
    if options.action == "show":
        return _print(run_in_reactor(lambda reactor: _details(reactor, settings, path, found)))
    if options.action == "ping":
        return run_in_reactor(lambda reactor: _ping(reactor, settings, found))
    position = None
    if options.action == "replay":
        position = position_at(time.time() - options.since.total_seconds())
    return _print(run_in_reactor(lambda reactor: move(reactor, settings, found, position)))


def registrations(settings: Settings) -> Registered:
    """All registrations with their files. Raises `ConfigError`."""
    return load_registration_files(
        settings.appservices, settings.appservices_folder, settings.server_name
    )


def _find(registered: Registered, appservice_id: str) -> tuple[Path, Appservice]:
    for path, each in registered:
        if each.id == appservice_id:
            return path, each
    known = ", ".join(plain(each.id) for _, each in registered) or "none"
    raise CommandError(
        f"There is no application service {plain(appservice_id)}; the ids are: {known}"
    )


async def _listing(reactor: Any, settings: Settings, registered: Registered) -> list[str]:
    if not registered:
        folder = settings.appservices_folder
        return [f"There are none. To add one, put its registration file into {folder}"]
    async with open_database(reactor, settings) as db:
        counts = await db.run(count_by_appservice)
    return [line for _, each in registered for line in _summary(each, counts.get(each.id, 0))]


async def _details(
    reactor: Any, settings: Settings, path: Path, registered: Appservice
) -> list[str]:
    async with open_database(reactor, settings) as db:
        counts = await db.run(count_by_appservice)
        users = await db.run(users_of_appservice, registered.id, MAX_USERS)
        position = await db.run(reader_position, reader_name(registered.id))
        waiting = await db.run(last_transaction, registered.id)
    count = counts.get(registered.id, 0)
    lines = [*_summary(registered, count), f"  file       {path}", *_switches(registered)]
    if position is not None:
        received = "a transaction waits for it" if waiting and waiting.body else "nothing waits"
        lines.append(f"  sent up to {_time_of(position)}; {received}")
    lines += [f"  made       {plain(user_id)}" for user_id in users]
    if count > len(users):
        lines.append(f"             and {count - len(users):,} more")
    return lines


def _time_of(position: int) -> str:
    return datetime.fromtimestamp(seconds_at(position), UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _summary(registered: Appservice, count: int) -> Iterator[str]:
    yield plain(registered.id)
    yield f"  url        {plain(registered.url or 'none: nothing is sent to it')}"
    yield f"  sender     {plain(registered.sender)}"
    for kind, namespaces in (
        ("users", registered.users),
        ("aliases", registered.aliases),
        ("rooms", registered.rooms),
    ):
        for each in namespaces.namespaces:
            exclusive = ", exclusive" if each.exclusive else ""
            yield f"  {kind:<10} {plain(each.regex.pattern)}{exclusive}"
    if registered.protocols:
        yield f"  protocols  {plain(', '.join(registered.protocols))}"
    yield f"  has made   {count:,} {'user' if count == 1 else 'users'}"


def _switches(registered: Appservice) -> Iterator[str]:
    for name, is_on in (
        ("rate limits of its users", registered.rate_limited),
        ("typing, receipts, presence", registered.receives_ephemeral),
        ("device lists, key counts", registered.receives_encryption),
        ("import of history", registered.may_import_history),
    ):
        yield f"  {'on ' if is_on else 'off'}        {name}"


async def _ping(reactor: Any, settings: Settings, registered: Appservice) -> int:
    reachability = Reachability(reactor, settings)
    try:
        outcome = await reachability.check(registered)
    finally:
        await reachability.stop()
    print(f"{plain(registered.id)}: {outcome.text}")
    if outcome.fix:
        print(f"  -> {outcome.fix}")
    return 0 if outcome.is_reached else 1


def _print(lines: Sequence[str]) -> int:
    for line in lines:
        print(line)
    return 0

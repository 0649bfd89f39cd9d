"""`homeserver user`: accounts, on a running or a stopped server."""

import argparse
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from homeserver.accounts.appservices.appservices import Appservices
from homeserver.accounts.credentials.passwords import Passwords
from homeserver.accounts.registration.administration import (
    add_user,
    deactivate,
    existing_user_id,
    list_users,
    local_user_id,
    set_password,
)
from homeserver.cli.accounts.identities import IDENTITY_ACTIONS, plan_identities
from homeserver.cli.accounts.threepids import THREEPID_ACTIONS, plan_threepids
from homeserver.cli.cli_context import CliContext, Work
from homeserver.cli.configuration import find_config, load_installed
from homeserver.cli.database import open_database
from homeserver.cli.errors import CommandError
from homeserver.cli.passwords import read_password
from homeserver.cli.reactor import run_in_reactor
from homeserver.config.appservices import load_registrations
from homeserver.config.hints import homeserver_command
from homeserver.config.settings import Settings
from homeserver.protocol.errors import MatrixError
from homeserver.storage.accounts.users import User


def user(options: argparse.Namespace) -> int:
    """Do what `options.action` names, to the account `options.user`; returns the exit status."""
    settings = load_installed(options.config)
    try:
        work = _plan(options, settings)
        for line in run_in_reactor(lambda reactor: _with_database(reactor, settings, work)):
            print(line)
    except MatrixError as error:
        raise CommandError(str(error)) from None
    return 0


def _plan(options: argparse.Namespace, settings: Settings) -> Work:
    """The work to do once there is a database; it returns the lines to print.

    All prompts and errors that need no database come first.
    """
    if options.action == "list":
        return _listing(find_config(options.config))
    find_user_id = local_user_id if options.action == "add" else existing_user_id
    user_id = find_user_id(options.user, settings.server_name)
    if options.action == "deactivate":
        return _deactivation(user_id, erase=options.erase)
    if options.action in THREEPID_ACTIONS:
        return plan_threepids(options, user_id)
    if options.action in IDENTITY_ACTIONS:
        return plan_identities(options, settings, user_id)
    password = read_password(options.password, from_stdin=options.password_stdin)
    if options.action == "add":
        return _addition(user_id, password, settings, is_admin=options.admin)
    return _change_of_password(user_id, password)


def _listing(config: Path | None) -> Work:
    async def work(at: CliContext) -> list[str]:
        if users := await list_users(at.db):
            return [_describe(user) for user in users]
        return [
            "There are no accounts yet. To create one: "
            + homeserver_command("user", "add", "NAME", config=config)
        ]

    return work


def _describe(user: User) -> str:
    """An account on one line: its name, its day of creation, and its flags."""
    created = datetime.fromtimestamp(user.created_ms / 1000, tz=UTC).date().isoformat()
    marks = {
        "admin": user.is_admin,
        "guest": user.is_guest,
        "locked": user.is_locked,
        "suspended": user.is_suspended,
        "deactivated": user.is_deactivated,
    }
    special = ", ".join(mark for mark, applies in marks.items() if applies)
    return f"{user.user_id:<40} {created} {special}".rstrip()


def _addition(user_id: str, password: str, settings: Settings, *, is_admin: bool) -> Work:
    registered = load_registrations(
        settings.appservices, settings.appservices_folder, settings.server_name
    )
    if (owner := Appservices(registered).owner_of_user(user_id)) is not None:
        raise CommandError(
            f"{user_id} is reserved for the application service {owner.id}. Choose another name, or"
            " narrow the namespace in its registration"
        )

    async def work(at: CliContext) -> list[str]:
        await add_user(
            at.db,
            at.passwords,
            user_id,
            password,
            is_admin=is_admin,
            localpart_as_display_name=settings.registration.localpart_as_display_name,
            now_ms=int(time.time() * 1000),
        )
        return [f"Added {user_id}"]

    return work


def _change_of_password(user_id: str, password: str) -> Work:
    async def work(at: CliContext) -> list[str]:
        await set_password(at.db, at.passwords, user_id, password)
        return [f"Set the password of {user_id}"]

    return work


def _deactivation(user_id: str, *, erase: bool) -> Work:
    async def work(at: CliContext) -> list[str]:
        await deactivate(at.db, user_id, erase=erase)
        return [f"Deactivated {user_id}"]

    return work


async def _with_database(reactor: Any, settings: Settings, work: Work) -> list[str]:
    async with open_database(reactor, settings) as db:
        return await work(CliContext(db, Passwords(reactor, settings.passwords)))

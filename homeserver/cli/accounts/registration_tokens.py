"""`homeserver registration-token`: tokens for registration, on a running or a stopped server."""

import argparse
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from homeserver.accounts.credentials.registration_tokens import (
    issue_registration_token,
    list_registration_tokens,
    withdraw_registration_token,
)
from homeserver.cli.configuration import load_installed
from homeserver.cli.database import open_database
from homeserver.cli.errors import CommandError
from homeserver.cli.plain_text import plain
from homeserver.cli.reactor import run_in_reactor
from homeserver.config.settings import Settings
from homeserver.protocol.errors import MatrixError
from homeserver.storage.accounts.registration_tokens import RegistrationToken
from homeserver.storage.database.database import Database


def registration_token(options: argparse.Namespace) -> int:
    """Do what `options.action` names; returns the exit status. Raises `CommandError`."""
    settings = load_installed(options.config)
    try:
        lines = run_in_reactor(lambda reactor: _with_database(reactor, settings, options))
    except MatrixError as error:
        raise CommandError(str(error)) from None
    for line in lines:
        print(line)
    return 0


async def _with_database(
    reactor: Any, settings: Settings, options: argparse.Namespace
) -> list[str]:
    async with open_database(reactor, settings) as db:
        if options.action == "add":
            return [await _issue(db, options)]
        if options.action == "remove":
            await withdraw_registration_token(db, options.token)
            return [f"Withdrew {options.token}"]
        now_ms = _now_ms()
        tokens = await list_registration_tokens(db)
        return [_describe(each, now_ms) for each in tokens] or ["There are no tokens."]


async def _issue(db: Database, options: argparse.Namespace) -> str:
    after: timedelta | None = options.expires_after
    expires_ms = None if after is None else _now_ms() + int(after.total_seconds() * 1000)
    return await issue_registration_token(db, options.token, options.uses, expires_ms)


def _describe(token: RegistrationToken, now_ms: int) -> str:
    """A token on one line: its uses, and its end."""
    allowed = "" if token.uses_allowed is None else f" of {token.uses_allowed}"
    line = f"{plain(token.token):<34} used {token.uses}{allowed}"
    if token.expires_ms is None:
        return line
    at = datetime.fromtimestamp(token.expires_ms / 1000, tz=UTC)
    return f"{line}, {'expires' if token.expires_ms > now_ms else 'expired'} {at:%Y-%m-%d %H:%M}"


def _now_ms() -> int:
    return int(time.time() * 1000)

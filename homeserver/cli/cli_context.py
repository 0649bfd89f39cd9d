"""The context of commands that change accounts, and the type of their work."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from homeserver.accounts.credentials.passwords import Passwords
from homeserver.storage.database.database import Database


@dataclass(frozen=True, slots=True)
class CliContext:
    """The objects that changes of accounts need."""

    db: Database
    passwords: Passwords


Work = Callable[[CliContext], Awaitable[list[str]]]
"""A coroutine function that does the work of a command and returns the lines to print."""

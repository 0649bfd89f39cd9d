"""The context of commands that change accounts, and the type of their work."""

from collections.abc import Awaitable, Callable

import msgspec

from homeserver.accounts.credentials.passwords import Passwords
from homeserver.storage.database.database import Database


class CliContext(msgspec.Struct, frozen=True):
    """The objects that changes of accounts need."""

    db: Database
    passwords: Passwords


Work = Callable[[CliContext], Awaitable[list[str]]]
"""A coroutine function that does the work of a command and returns the lines to print."""

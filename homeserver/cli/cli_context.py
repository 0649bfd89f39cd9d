"""What commands about accounts work with, and what their work is."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from homeserver.accounts.credentials.passwords import Passwords
from homeserver.storage.database.database import Database


@dataclass(frozen=True, slots=True)
class CliContext:
    """What changes to accounts are made with."""

    db: Database
    passwords: Passwords


Work = Callable[[CliContext], Awaitable[list[str]]]
"""Does what was asked for; gives the lines to print."""

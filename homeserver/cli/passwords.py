"""The source of a new password for a command: the command line, the input, or a prompt."""

import getpass
import sys

from homeserver.cli.errors import CommandError


def read_password(given: str | None, *, from_stdin: bool) -> str:
    """The password to set. Raises `CommandError` for an empty one, or for two that differ."""
    if given is not None:
        password = given
    elif from_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    else:
        password = _ask()
    if not password:
        raise CommandError("The password is empty")
    return password


def _ask() -> str:
    if not sys.stdin.isatty():
        raise CommandError("There is no terminal to ask for a password: use --password-stdin")
    password = getpass.getpass("Password: ")
    if getpass.getpass("Once more: ") != password:
        raise CommandError("The two passwords differ")
    return password

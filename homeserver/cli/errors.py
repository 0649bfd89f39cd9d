"""The error of commands."""


class CommandError(Exception):
    """The command failed; the message says why, and what to do."""

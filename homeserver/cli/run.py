"""`homeserver run`: the server in the foreground, until SIGINT or SIGTERM.

SIGHUP opens the log file anew, so that it can be rotated.
"""

import signal
from pathlib import Path
from types import FrameType

from homeserver.cli.configuration import load
from homeserver.cli.errors import CommandError
from homeserver.config.signing_key import load_or_create_signing_key
from homeserver.observability.logging import Output, configure_logging


def run(config: Path | None) -> int:
    """Run the server; returns its exit status."""
    settings = load(config)
    load_or_create_signing_key(settings.signing_key_path)
    try:
        output = configure_logging(settings.log)
    except OSError as error:
        raise CommandError(f"cannot write the log {settings.log.file}: {error.strerror}") from None
    _reopen_on_hangup(output)

    # The reactor is chosen when it is first imported, so not before everything above is right.
    from homeserver.app import run_server

    return run_server(settings)


def _reopen_on_hangup(output: Output) -> None:
    previous = signal.getsignal(signal.SIGHUP)

    def hang_up(number: int, frame: FrameType | None) -> None:
        output.reopen()
        if callable(previous):
            previous(number, frame)

    signal.signal(signal.SIGHUP, hang_up)

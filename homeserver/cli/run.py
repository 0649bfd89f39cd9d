"""`homeserver run`: the server in the foreground, until SIGINT or SIGTERM.

SIGHUP opens the log file anew, so that it can be rotated.
"""

import signal
import sys
from pathlib import Path
from types import FrameType

from homeserver.cli.configuration import load
from homeserver.cli.errors import CommandError
from homeserver.config.settings import Settings
from homeserver.config.signing_key import load_or_create_signing_key
from homeserver.observability.logging import Output, configure_logging

NEXT_STEPS = """
{name} is ready at {address}
  create a user:   {command} user add NAME   (add --admin for an administrator)
  connect:         enter {address} as the homeserver in any Matrix client, and log in
  stop:            Ctrl-C
"""


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
    from homeserver.app import Homeserver, run_server

    def say_what_to_do_next(server: Homeserver) -> None:
        address = settings.public_baseurl or _local_address(settings, server.ports)
        name, command = settings.server_name, sys.argv[0]
        print(NEXT_STEPS.format(name=name, address=address, command=command), flush=True)

    return run_server(settings, say_what_to_do_next)


def _local_address(settings: Settings, ports: list[int]) -> str:
    first = settings.listeners[0]
    if first.path is not None or not ports:
        return str(first.path)
    return f"{'http' if first.tls is None else 'https'}://localhost:{ports[0]}"


def _reopen_on_hangup(output: Output) -> None:
    previous = signal.getsignal(signal.SIGHUP)

    def hang_up(number: int, frame: FrameType | None) -> None:
        output.reopen()
        if callable(previous):
            previous(number, frame)

    signal.signal(signal.SIGHUP, hang_up)

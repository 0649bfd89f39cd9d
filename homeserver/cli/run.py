"""`homeserver run`: the server in the foreground, until SIGINT or SIGTERM.

SIGHUP reloads all that can be replaced while the server runs: the log file is reopened, so that it
can be rotated, and the certificates of the listeners are read again.
"""

import signal
import sys
from collections.abc import Callable
from pathlib import Path

from homeserver.cli.configuration import find_config, load
from homeserver.cli.errors import CommandError
from homeserver.config.hints import homeserver_command
from homeserver.config.settings import Settings
from homeserver.config.signing_key import load_or_create_signing_key
from homeserver.observability.logging import configure_logging

NEXT_STEPS = """
{name} is ready at {address}
  create a user:   {add_user}   (add --admin for an administrator)
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
    reloads = [output.reopen]
    _call_on_hangup(reloads)

    # The first import chooses the reactor, so it must not happen before everything above is right.
    from homeserver.app import Homeserver, run_server

    def say_what_to_do_next(server: Homeserver) -> None:
        address = settings.public_baseurl or _local_address(settings, server.ports)
        add_user = homeserver_command("user", "add", "NAME", config=find_config(config))
        name = settings.server_name
        print(NEXT_STEPS.format(name=name, address=address, add_user=add_user), flush=True)

    def say_why_not(reason: str) -> None:
        if settings.log.file is not None:  # else the reason is in the log on the screen
            print(f"The server did not start: {reason}", file=sys.stderr, flush=True)

    return run_server(settings, say_what_to_do_next, say_why_not, reloads.append)


def _local_address(settings: Settings, ports: list[int]) -> str:
    first = settings.listeners[0]
    if first.path is not None or not ports:
        return str(first.path)
    return f"{'http' if first.tls is None else 'https'}://localhost:{ports[0]}"


def _call_on_hangup(reloads: list[Callable[[], None]]) -> None:
    """Call all entries of the list at each SIGHUP; they must be safe in a signal handler."""

    def hang_up(*_: object) -> None:
        for reload in reloads:
            reload()

    signal.signal(signal.SIGHUP, hang_up)

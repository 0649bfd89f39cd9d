"""The command `homeserver`, also as `python -m homeserver`."""

import signal
import sys


def main() -> int:
    """Run the command line of this process; returns the exit status.

    Until a command has been loaded, Ctrl-C ends the process at once: there is nothing to clean up
    yet, and Python would print a traceback.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from homeserver.cli.main import main as run_command_line

    return run_command_line()


if __name__ == "__main__":
    sys.exit(main())

"""Options that several commands have."""

import argparse
from datetime import timedelta
from pathlib import Path

MAX_LENGTH = 11  # characters: the longest one in seconds
MAX_DURATION = timedelta(days=36_500)  # the end of a longer one may have no date


def add_config(parser: argparse.ArgumentParser) -> None:
    """Let the command line name the configuration."""
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="configuration (homeserver.yaml in the working directory, if there is one)",
    )


def duration(text: str) -> timedelta:
    """A time such as `90s`, `2h` or `7d`. Raises `argparse.ArgumentTypeError`."""
    unit = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}.get(text[-1:])
    if unit is None or not text[:-1].isdecimal() or len(text) > MAX_LENGTH:
        raise argparse.ArgumentTypeError("a number and s, m, h or d, such as 2h")
    time = timedelta(**{unit: int(text[:-1])})
    if time > MAX_DURATION:
        raise argparse.ArgumentTypeError(f"at most {MAX_DURATION.days}d")
    return time

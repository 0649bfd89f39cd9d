"""Processes that this one starts: what they get, their priority, and the lines that they write."""

import os
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

PART = 65_536  # bytes
NICENESS = 10  # users wait for this server more than for these processes


def start_program(arguments: Sequence[str], *, bufsize: int = -1) -> subprocess.Popen[bytes]:
    """Start a Python program that is to get nothing of this process but its input.

    `arguments` are its file and what follows. Its own errors are not kept. Raises `OSError`.
    """
    # Without the environment: it may have secrets, and names modules that would be imported.
    return subprocess.Popen(  # noqa: S603  # nothing of it comes from a client
        [sys.executable, "-I", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env={"PATH": os.defpath},
        start_new_session=True,
        bufsize=bufsize,
    )


def lower_priority(pid: int) -> None:
    """Let a process give way, where that is allowed: a service may not change priorities."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, pid, NICENESS)


def read_line(fd: int, seconds: float, max_bytes: int) -> bytes:
    """One line from a pipe, for which it blocks, from a process that then waits for its next input.

    Raises `OSError`, or `ValueError` if it does not come in time, is too long or is not the only
    one.
    """
    deadline = time.monotonic() + seconds
    line = b""
    while not line.endswith(b"\n"):
        left = deadline - time.monotonic()
        if left <= 0:
            raise ValueError(f"no result within {seconds} seconds")
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        if not poll.poll(left * 1000):
            continue
        part = os.read(fd, PART)
        if not part:
            raise ValueError("it has ended")
        line += part
        if len(line) > max_bytes:
            raise ValueError("its result is too long")
    return line

"""Processes that this one starts: their priority, and the lines that they write."""

import os
import select
import time
from contextlib import suppress

PART = 65_536  # bytes
NICENESS = 10  # users wait for this server more than for these processes


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

"""Lines from the pipe of another process, each within a time and a size. Reading blocks."""

import os
import select
import time

PART = 65_536  # bytes


def read_line(fd: int, seconds: float, max_bytes: int) -> bytes:
    """One line from a pipe, from a process that then waits for its next input.

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

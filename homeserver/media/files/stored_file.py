"""Reading a stored file part by part, without waiting for the disk in the reactor's thread.

What is in the page cache is read at once (`RWF_NOWAIT`); only for the rest, or where the system or
the file system does not know that flag, a thread waits for the disk.
"""

import os
from collections.abc import AsyncGenerator
from functools import partial
from pathlib import Path

from homeserver.media.files.disk import Disk
from homeserver.protocol.errors import NotFound

PART_SIZE = 131_072  # bytes
_NOWAIT = getattr(os, "RWF_NOWAIT", 0)


class DamagedFile(Exception):
    """A file is shorter than its row says."""


async def read_parts(disk: Disk, path: Path, start: int, end: int) -> AsyncGenerator[bytes, None]:
    """The bytes of a file from `start` to `end`, which exist according to its row.

    Raises `NotFound` before the first part if the file is missing.
    """
    try:
        fd = await disk.open(partial(os.open, path, os.O_RDONLY | os.O_CLOEXEC))
    except FileNotFoundError:
        raise NotFound("The server has lost this media") from None
    try:
        while start < end:
            part = await read_at(disk, fd, min(PART_SIZE, end - start), start)
            start += len(part)
            yield part
    finally:
        os.close(fd)


async def read_at(disk: Disk, fd: int, size: int, offset: int) -> bytes:
    """At most `size` bytes of an open file, one at least. Raises `DamagedFile` at its end."""
    part = _read_cached(fd, size, offset) or await disk.run(os.pread, fd, size, offset)
    if not part:
        raise DamagedFile(f"a stored file ends at {offset} bytes")
    return part


def _read_cached(fd: int, size: int, offset: int) -> bytes:
    """What is in memory already; nothing if the disk must be waited for."""
    if not _NOWAIT:
        return b""
    buffer = bytearray(size)
    try:
        count = os.preadv(fd, [buffer], offset, _NOWAIT)
    except OSError:
        return b""
    return bytes(memoryview(buffer)[:count])

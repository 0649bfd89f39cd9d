"""An incoming file: written to disk and hashed while it arrives, and not yet visible to anyone.

It is in the folder `incoming` of the media folder (`staging.py`). What a crash leaves there is
deleted at the next start.
"""

import hashlib
import os
from pathlib import Path
from threading import Lock

from homeserver.media.files.disk import Disk
from homeserver.protocol.errors import Unavailable

HASHED_AT_ONCE = 1_048_576  # bytes
CHECKED_EVERY = 8_388_608  # bytes, after which the free space is checked again


class IncomingFile:
    """A file that is being received; `size` bytes have been written.

    All methods wait for the disk in a thread. One caller uses a file, and has it stored by
    `ContentStore` or not, and calls `discard` at the end.
    """

    def __init__(self, disk: Disk, path: Path) -> None:
        self.path = path
        self.size = 0
        self._disk = disk
        self._hash = hashlib.sha256()
        self._fd = -1
        self._check_at = CHECKED_EVERY
        # A caller that is cancelled discards the file while a thread may still write to it: to a
        # descriptor that is closed meanwhile, and perhaps that of another file or connection then.
        self._lock = Lock()
        self._is_discarded = False

    async def write(self, parts: list[bytes]) -> None:
        """Append some bytes. Raises `NoSpace`."""
        await self._disk.run(self._write, parts)

    async def close(self) -> bytes:
        """Have everything on disk; the SHA-256 of the content. Raises `NoSpace`."""
        await self._disk.run(self._sync)
        return self._hash.digest()

    async def close_written(self) -> bytes:
        """The same for a file that another process has written at `path`."""
        await self._disk.run(self._hash_written)
        return self._hash.digest()

    async def discard(self) -> None:
        """Delete the file, unless it has been moved to its place in the storage."""
        try:
            await self._disk.run(self._discard)
        except Unavailable:
            # No thread is free: better a short wait for the disk than a file that stays open.
            self._discard()

    def _write(self, parts: list[bytes]) -> None:
        with self._lock:
            if not self._is_discarded:
                self._append(parts)

    def _append(self, parts: list[bytes]) -> None:
        if self._fd < 0:
            self._open()
        for part in parts:
            self._hash.update(part)
            view = memoryview(part)
            while view:
                view = view[os.write(self._fd, view) :]
            self.size += len(part)
        if self.size >= self._check_at:
            self._check_at = self.size + CHECKED_EVERY
            self._disk.check_space(self._fd)

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self._fd = os.open(self.path, flags, 0o600)

    def _sync(self) -> None:
        with self._lock:
            if self._is_discarded:
                return
            if self._fd < 0:
                self._open()
            os.fsync(self._fd)
            self._close()

    def _hash_written(self) -> None:
        with self.path.open("rb") as file:
            while part := file.read(HASHED_AT_ONCE):
                self._hash.update(part)
                self.size += len(part)
            os.fsync(file.fileno())

    def _discard(self) -> None:
        with self._lock:
            self._is_discarded = True
            self._close()
            self.path.unlink(missing_ok=True)

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

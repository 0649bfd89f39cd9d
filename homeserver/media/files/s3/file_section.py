"""A section of a file, as the body of a request: it is read in small parts, never as a whole."""

import base64
import hashlib
import io
import os
from pathlib import Path
from typing import Any

HASHED_AT_ONCE = 131_072  # bytes


class FileSection(io.RawIOBase):
    """`size` bytes of a file from `offset`; closing it closes the file. For one thread."""

    def __init__(self, path: Path, offset: int, size: int) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._offset = offset
        self._size = size
        self._place = 0

    def __len__(self) -> int:
        return self._size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        self._place = min(max(origin + offset, 0), self._size)
        return self._place

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")[: self._size - self._place]
        count = os.preadv(self._fd, [view], self._offset + self._place) if view else 0
        self._place += count
        return count

    def close(self) -> None:
        if not self.closed:
            os.close(self._fd)
        super().close()

    def md5(self) -> str:
        """The MD5 of the section, as the header `Content-MD5` has it."""
        digest = hashlib.md5(usedforsecurity=False)
        buffer = bytearray(HASHED_AT_ONCE)
        self.seek(0)
        while count := self.readinto(buffer):
            digest.update(memoryview(buffer)[:count])
        self.seek(0)
        return base64.b64encode(digest.digest()).decode()

"""The storage of contents in a local folder.

media/content/ab/cd…   a stored content, `abcd…` being its hash in hexadecimal

The folder `ab` is made with its first content.
"""

import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from homeserver.media.files.content_storage import CONTENT, hash_in, path_in_storage
from homeserver.media.files.disk import Disk
from homeserver.media.files.incoming_file import IncomingFile
from homeserver.media.files.stored_file import read_parts

PAGE = 500  # contents


class LocalStorage:
    """The folder `content` of one media folder, which is on the same disk as `incoming`."""

    def __init__(self, folder: Path, disk: Disk) -> None:
        self._folder = folder
        self._disk = disk

    async def prepare(self) -> None:
        """Make the folder (`ContentStorage`)."""
        await self._disk.run(self._prepare)

    async def put(self, incoming: IncomingFile, sha256: bytes) -> None:
        """Move a file to its place (`ContentStorage`)."""
        await self._disk.run(_move, incoming.path, self._path_of(sha256))

    def read(self, sha256: bytes, start: int, end: int) -> AsyncGenerator[bytes, None]:
        """Some bytes of a content (`ContentStorage`)."""
        return read_parts(self._disk, self._path_of(sha256), start, end)

    @asynccontextmanager
    async def local_copy(self, sha256: bytes, size: int) -> AsyncIterator[Path]:
        """The stored file itself (`ContentStorage`)."""
        yield self._path_of(sha256)

    async def delete(self, sha256: bytes) -> None:
        """Delete a content (`ContentStorage`)."""
        await self._disk.run(self._path_of(sha256).unlink, missing_ok=True)

    async def delete_unfinished(self) -> None:
        """Do nothing: all that is unfinished is in `incoming` (`ContentStorage`)."""

    async def pages(self) -> AsyncGenerator[list[bytes], None]:
        """The hashes of all contents (`ContentStorage`)."""
        for number in range(256):
            stored = await self._disk.run(self._hashes_in, f"{number:02x}")
            for start in range(0, len(stored), PAGE):
                yield stored[start : start + PAGE]

    def _path_of(self, sha256: bytes) -> Path:
        return self._folder / path_in_storage(sha256)

    def _hashes_in(self, name: str) -> list[bytes]:
        """The hashes of the contents in one folder; other files do not concern this server."""
        try:
            entries = list(os.scandir(self._folder / CONTENT / name))
        except FileNotFoundError:
            return []
        hashes = [hash_in(f"{name}/{entry.name}") for entry in entries]
        return [sha256 for sha256 in hashes if sha256 is not None]

    def _prepare(self) -> None:
        (self._folder / CONTENT).mkdir(mode=0o700, parents=True, exist_ok=True)


def _move(source: Path, target: Path) -> None:
    # The same content replaces itself: the new file is surely on disk.
    try:
        source.replace(target)
    except FileNotFoundError:
        target.parent.mkdir(mode=0o700, exist_ok=True)
        _sync_folder(target.parent.parent)
        source.replace(target)
    _sync_folder(target.parent)


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)

"""The content store: each content once, in a file that is named after its SHA-256.

    media/incoming/…       files that are being received
    media/content/ab/cd…   a stored content, `abcd…` being its hash in hexadecimal

No part of a path comes from a client: all names are hashes and random numbers. A content is in its
place, and on disk, before the row that names it is written; it is deleted after the last row. A
crash between the two leaves a content that no row names, which `release_orphans` finds.
"""

import os
import re
import secrets
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from homeserver.concurrency.keyed_locks import KeyedLocks
from homeserver.config.settings import Settings
from homeserver.media.files.disk import Disk
from homeserver.media.files.incoming_file import IncomingFile
from homeserver.storage.database.database import Database
from homeserver.storage.media.media import contents_of_media
from homeserver.storage.media.thumbnails import (
    contents_of_thumbnails,
    delete_thumbnails,
    sources_after,
)

INCOMING = "incoming"
CONTENT = "content"
HASH = re.compile("[0-9a-f]{64}")
AT_ONCE = 500  # contents that are looked up in one query


def media_folder(settings: Settings) -> Path:
    """The configured media folder."""
    return settings.media.folder or settings.data_dir / "media"


class ContentStore:
    """The stored contents of one media folder.

    Its users read from `disk`, too.
    """

    def __init__(self, folder: Path, db: Database, disk: Disk) -> None:
        self.disk = disk
        self._incoming = folder / INCOMING
        self._content = folder / CONTENT
        self._db = db
        self._locks: KeyedLocks[bytes] = KeyedLocks()

    async def open(self) -> None:
        """Make the folders, and delete files that a former run did not complete."""
        await self.disk.run(self._prepare)

    async def begin(self, announced: int | None = None) -> IncomingFile:
        """A new file, of `announced` bytes if that is known. Raises `NoSpace`."""
        await self.disk.run(self.disk.check_space, self._incoming, announced or 0)
        return IncomingFile(self.disk, self._incoming / secrets.token_hex(16))

    async def keep(
        self, incoming: IncomingFile, sha256: bytes, record: Callable[[], Awaitable[None]]
    ) -> None:
        """Store a closed file, and then call `record`, which writes the row that names it."""
        async with self._locks.hold(sha256):
            await self.disk.run(self._move, incoming, self.path_of(sha256))
            await record()

    async def release(self, hashes: Iterable[bytes]) -> int:
        """Delete those contents that nothing names, with their thumbnails; their number."""
        waiting, deleted = [*hashes], 0
        while waiting:
            sha256 = waiting.pop()
            async with self._locks.hold(sha256):
                if await self._db.run(contents_of_media, [sha256]):
                    continue
                waiting += await self._db.run(delete_thumbnails, sha256) - {sha256}
                if await self._db.run(contents_of_thumbnails, [sha256]):
                    continue
                await self.disk.run(self.path_of(sha256).unlink, missing_ok=True)
                deleted += 1
        return deleted

    async def release_orphans(self, is_wanted: Callable[[], bool]) -> int:
        """Delete all contents that nothing names; their number.

        It goes through all files and thumbnails, and ends when `is_wanted` becomes false.
        """
        deleted, source = 0, b""
        while is_wanted() and (sources := await self._db.run(sources_after, source, AT_ONCE)):
            source = sources[-1]
            known = await self._db.run(contents_of_media, sources)
            deleted += await self.release(set(sources) - known)
        for number in range(256):
            stored = await self.disk.run(self._hashes_in, f"{number:02x}")
            for start in range(0, len(stored), AT_ONCE):
                if not is_wanted():
                    return deleted
                part = stored[start : start + AT_ONCE]
                named = await self._db.run(contents_of_media, part)
                named |= await self._db.run(contents_of_thumbnails, part)
                deleted += await self.release(set(part) - named)
        return deleted

    def path_of(self, sha256: bytes) -> Path:
        """The path at which a content is, if it is stored."""
        digits = sha256.hex()
        return self._content / digits[:2] / digits[2:]

    def _hashes_in(self, folder: str) -> list[bytes]:
        """The hashes of the contents in one folder; other files do not concern this server."""
        names = [folder + entry.name for entry in os.scandir(self._content / folder)]
        return [bytes.fromhex(name) for name in names if HASH.fullmatch(name)]

    def _prepare(self) -> None:
        self._incoming.mkdir(mode=0o700, parents=True, exist_ok=True)
        for number in range(256):
            (self._content / f"{number:02x}").mkdir(mode=0o700, parents=True, exist_ok=True)
        for entry in os.scandir(self._incoming):
            if entry.is_file(follow_symlinks=False):
                Path(entry.path).unlink(missing_ok=True)

    def _move(self, incoming: IncomingFile, target: Path) -> None:
        incoming.move(target)
        folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

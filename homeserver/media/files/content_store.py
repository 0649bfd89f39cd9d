"""The content store: each content once, under its SHA-256.

A file is received in the folder `incoming` of the media folder, and then handed to the storage. No
part of a path comes from a client: all names are hashes and random numbers. A content is in its
place, durably, before the row that names it is written; it is deleted after the last row. A crash
between the two leaves a content that no row names, which `release_orphans` finds.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, aclosing
from pathlib import Path

from homeserver.concurrency.keyed_locks import KeyedLocks
from homeserver.config.settings import Settings
from homeserver.media.files.content_storage import ContentStorage
from homeserver.media.files.incoming_file import IncomingFile
from homeserver.media.files.staging import Staging
from homeserver.storage.database.database import Database
from homeserver.storage.media.media import contents_of_media
from homeserver.storage.media.thumbnails import (
    contents_of_thumbnails,
    delete_thumbnails,
    sources_after,
)

AT_ONCE = 500  # contents that are looked up in one query


def media_folder(settings: Settings) -> Path:
    """The configured media folder."""
    return settings.media.folder or settings.data_dir / "media"


class ContentStore:
    """The stored contents; files that are being received are on `disk`."""

    def __init__(self, db: Database, staging: Staging, storage: ContentStorage) -> None:
        self.disk = staging.disk
        self._db = db
        self._staging = staging
        self._storage = storage
        self._locks: KeyedLocks[bytes] = KeyedLocks()

    async def open(self) -> None:
        """Get ready, and delete files that a former run did not complete."""
        await self._staging.prepare()
        await self._storage.prepare()

    async def begin(self, announced: int | None = None) -> IncomingFile:
        """A new file, of `announced` bytes if that is known. Raises `NoSpace`."""
        return await self._staging.begin(announced)

    async def keep(
        self, incoming: IncomingFile, sha256: bytes, record: Callable[[], Awaitable[None]]
    ) -> None:
        """Store a closed file, and then call `record`, which writes the row that names it."""
        async with self._locks.hold(sha256):
            await self._storage.put(incoming, sha256)
            await record()

    def read(self, sha256: bytes, start: int, end: int) -> AsyncGenerator[bytes, None]:
        """The bytes of a content from `start` to `end`, which exist according to its row.

        Raises `NotFound` before the first part if the content is missing.
        """
        return self._storage.read(sha256, start, end)

    def local_copy(self, sha256: bytes, size: int) -> AbstractAsyncContextManager[Path]:
        """A file with a content of `size` bytes. Raises `NotFound`, or the file is missing."""
        return self._storage.local_copy(sha256, size)

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
                await self._storage.delete(sha256)
                deleted += 1
        return deleted

    async def release_orphans(self, is_wanted: Callable[[], bool]) -> int:
        """Delete all contents that nothing names; their number.

        It goes through all contents and thumbnails, and ends when `is_wanted` becomes false.
        """
        await self._storage.delete_unfinished()
        deleted, source = 0, b""
        while is_wanted() and (sources := await self._db.run(sources_after, source, AT_ONCE)):
            source = sources[-1]
            known = await self._db.run(contents_of_media, sources)
            deleted += await self.release(set(sources) - known)
        async with aclosing(self._storage.pages()) as pages:
            async for page in pages:
                if not is_wanted():
                    return deleted
                named = await self._db.run(contents_of_media, page)
                named |= await self._db.run(contents_of_thumbnails, page)
                deleted += await self.release(set(page) - named)
        return deleted

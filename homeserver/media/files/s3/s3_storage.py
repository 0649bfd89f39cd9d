"""The storage of contents in a bucket.

    PREFIX/content/ab/cd…   a stored content, `abcd…` being its hash in hexadecimal
    PREFIX/owner/NAME       an empty object, NAME being that of the server

The keys are the paths in a local media folder, so that contents can be copied from one to the
other. An object is written as a whole or not at all, and never changes.
"""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta
from pathlib import Path

from twisted.logger import Logger

from homeserver.config.errors import ConfigError
from homeserver.media.files.content_storage import CONTENT, hash_in, path_in_storage
from homeserver.media.files.incoming_file import IncomingFile
from homeserver.media.files.s3.bucket import Bucket, BucketUnavailable, NoSuchObject
from homeserver.media.files.staging import Staging
from homeserver.media.files.stored_file import PART_SIZE
from homeserver.protocol.errors import NotFound, Unavailable

OWNER = "owner/"
READ_MEMORY = 33_554_432  # bytes for what all readers have fetched
MIN_READ, MAX_READ = PART_SIZE, 1_048_576  # bytes of one request
UNFINISHED = timedelta(days=1)  # after which an upload in parts is not in progress any more

log = Logger()


class BucketOfAnother(BucketUnavailable):
    """The bucket is the storage of another server, which would delete what this one stores."""


class S3Storage:
    """The contents of one server in a bucket."""

    def __init__(self, bucket: Bucket, staging: Staging, server_name: str) -> None:
        self._bucket = bucket
        self._staging = staging
        self._server_name = server_name
        self._is_claimed = False
        self._readers = 0

    async def prepare(self) -> None:
        """Check that no other server has its contents in the bucket (`ContentStorage`).

        Raises `ConfigError`. A bucket that cannot be reached does not keep the server from
        starting.
        """
        try:
            await self.claim()
        except BucketOfAnother as error:
            raise ConfigError(f"media.s3: {error.reason}; choose another prefix") from None
        except Unavailable:
            log.warn("media are not available until the bucket is")

    async def claim(self) -> None:
        """Write this server's name into the bucket. Raises `BucketUnavailable`."""
        if self._is_claimed:
            return
        names = {each.key.removeprefix(OWNER) for each in await self._bucket.list_page(OWNER)}
        if names - {self._server_name}:
            others = ", ".join(sorted(names))
            raise BucketOfAnother(f"{self._bucket.place} is the storage of {others}")
        if not names:
            await self._bucket.put_bytes(OWNER + self._server_name, b"")
        self._is_claimed = True

    async def put(self, incoming: IncomingFile, sha256: bytes) -> None:
        """Store a file (`ContentStorage`)."""
        await self.claim()
        await self._bucket.put(path_in_storage(sha256), incoming.path, incoming.size)

    async def read(self, sha256: bytes, start: int, end: int) -> AsyncGenerator[bytes, None]:
        """Some bytes of a content (`ContentStorage`).

        What a slow client has not read yet is in memory, so the more readers there are, the less
        each of them fetches at a time.
        """
        key = path_in_storage(sha256)
        self._readers += 1
        try:
            while start < end:
                size = min(max(READ_MEMORY // self._readers, MIN_READ), MAX_READ, end - start)
                fetched = await self._bucket.get(key, start, start + size)
                start += size
                for place in range(0, size, PART_SIZE):
                    yield fetched[place : place + PART_SIZE]
        except NoSuchObject:
            raise NotFound("The server has lost this media") from None
        finally:
            self._readers -= 1

    @asynccontextmanager
    async def local_copy(self, sha256: bytes, size: int) -> AsyncIterator[Path]:
        """A temporary file with a content (`ContentStorage`)."""
        copy = await self._staging.begin(size)
        try:
            async with aclosing(self.read(sha256, 0, size)) as parts:
                async for part in parts:
                    await copy.write([part])
            if await copy.close() != sha256:
                raise NotFound("The server has lost this media")
            yield copy.path
        finally:
            await copy.discard()

    async def delete(self, sha256: bytes) -> None:
        """Delete a content (`ContentStorage`)."""
        await self.claim()
        await self._bucket.delete(path_in_storage(sha256))

    async def delete_unfinished(self) -> None:
        """Abort uploads that a crash has left (`ContentStorage`)."""
        await self.claim()
        try:
            aborted = await self._bucket.abort_unfinished(f"{CONTENT}/", UNFINISHED)
        except BucketUnavailable:
            return  # it is in the log; some services do not list them, and abort them themselves
        if aborted:
            log.info("aborted {count} uploads in parts that a crash has left", count=aborted)

    async def pages(self) -> AsyncGenerator[list[bytes], None]:
        """The hashes of all contents (`ContentStorage`)."""
        await self.claim()
        after = ""
        while page := await self._bucket.list_page(f"{CONTENT}/", after):
            after = page[-1].key
            hashes = [hash_in(each.key) for each in page]
            yield [sha256 for sha256 in hashes if sha256 is not None]

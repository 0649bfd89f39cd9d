"""What every storage of contents does: in a local folder, and in a bucket."""

import hashlib
import os
import tempfile
from pathlib import Path

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from homeserver.concurrency.thread_pools import ThreadPool
from homeserver.media.files.content_storage import ContentStorage
from homeserver.media.files.disk import Disk
from homeserver.media.files.local_storage import LocalStorage
from homeserver.media.files.staging import Staging
from homeserver.protocol.errors import NotFound

UNKNOWN = hashlib.sha256(b"unknown").digest()


class StorageTestCase(TestCase):
    """A local folder as storage; `make_storage` makes another one."""

    async def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        pool = ThreadPool(reactor, "disk", size=4, max_waiting=100)
        self.staging = Staging(self.folder, Disk(pool, min_free_space=0))
        self.storage = self.make_storage()
        await self.staging.prepare()
        await self.storage.prepare()

    def make_storage(self) -> ContentStorage:
        """The storage to test."""
        return LocalStorage(self.folder, self.staging.disk)

    async def put(self, content: bytes) -> bytes:
        """Store a content; its hash."""
        incoming = await self.staging.begin()
        await incoming.write([content])
        sha256 = await incoming.close()
        await self.storage.put(incoming, sha256)
        await incoming.discard()
        return sha256

    async def read(self, sha256: bytes, start: int, end: int) -> bytes:
        """Some bytes of a content."""
        return b"".join([part async for part in self.storage.read(sha256, start, end)])

    async def stored(self) -> list[bytes]:
        """The hashes of all contents."""
        return sorted([sha256 async for page in self.storage.pages() for sha256 in page])


class ContentStorageTests(StorageTestCase):
    """The contract."""

    async def test_a_content_comes_back(self) -> None:
        """Whatever its size is; all of it, and any part of it."""
        for size in (0, 1, 131_072, 131_073, 9_000_001):
            content = os.urandom(size)
            sha256 = await self.put(content)

            self.assertEqual(await self.read(sha256, 0, size), content, size)
            for start, end in ((0, 1), (size // 2, size), (size - 1, size)):
                if 0 <= start < end <= size:
                    self.assertEqual(await self.read(sha256, start, end), content[start:end])
            async with self.storage.local_copy(sha256, size) as path:
                self.assertEqual(path.read_bytes(), content)

    async def test_the_same_content_twice(self) -> None:
        """It is stored once."""
        first, second = await self.put(b"same"), await self.put(b"same")

        self.assertEqual(first, second)
        self.assertEqual(await self.stored(), [first])
        self.assertEqual(await self.read(first, 0, 4), b"same")

    async def test_a_content_that_is_not_there(self) -> None:
        """It is lost, which is no internal error; to delete it changes nothing."""
        with self.assertRaises(NotFound):
            await self.read(UNKNOWN, 0, 1)

        await self.storage.delete(UNKNOWN)

    async def test_a_deleted_content_is_gone(self) -> None:
        """What a user withdraws is not kept."""
        gone, left = await self.put(b"gone"), await self.put(b"left")

        await self.storage.delete(gone)

        with self.assertRaises(NotFound):
            await self.read(gone, 0, 4)
        self.assertEqual(await self.stored(), [left])

    async def test_the_list_is_complete(self) -> None:
        """Orphans are found however many contents there are."""
        hashes = [await self.put(b"%d" % number) for number in range(30)]

        self.assertEqual(await self.stored(), sorted(hashes))

    async def test_a_copy_leaves_nothing(self) -> None:
        """Thumbnails cost no space for their sources."""
        sha256 = await self.put(b"x")

        async with self.storage.local_copy(sha256, 1):
            pass

        self.assertEqual(list((self.folder / "incoming").iterdir()), [])
        self.assertEqual(await self.stored(), [sha256])

    async def test_a_reader_that_leaves(self) -> None:
        """A client that ends in the middle of a download holds nothing."""
        sha256 = await self.put(os.urandom(1_000_000))
        parts = self.storage.read(sha256, 0, 1_000_000)
        await anext(parts)

        await parts.aclose()

        self.assertEqual(len(await self.read(sha256, 0, 1_000_000)), 1_000_000)

"""A bucket as the storage of contents: the contract, failures of the service, and bounds."""

import os
import time
from datetime import timedelta
from itertools import chain
from unittest.mock import patch

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import deferLater

from homeserver.config.errors import ConfigError
from homeserver.config.sections.s3 import S3Settings
from homeserver.media.files.content_storage import path_in_storage
from homeserver.media.files.s3 import bucket as bucket_module
from homeserver.media.files.s3 import s3_storage
from homeserver.media.files.s3.bucket import PART_SIZE, Bucket, BucketUnavailable
from homeserver.media.files.s3.s3_storage import MAX_READ, MIN_READ, S3Storage
from homeserver.protocol.errors import NotFound, Unavailable
from tests.media import test_content_storage
from tests.media.s3.fake_s3 import (
    FailingS3,
    Fault,
    Relay,
    breaks_off,
    closes,
    fails_with,
    keys_in,
    new_bucket,
    s3_client,
    unfinished_in,
)

LARGE = 3 * PART_SIZE + 17


class BucketTestCase(test_content_storage.StorageTestCase):
    """A bucket as storage, behind a relay that can fail."""

    def make_storage(self) -> S3Storage:
        self.s3 = FailingS3()
        self.addCleanup(self.s3.stop)
        self.settings = new_bucket()
        self.name = self.settings["bucket"]
        self.bucket = Bucket(reactor, S3Settings(**{**self.settings, "endpoint": self.s3.endpoint}))
        return S3Storage(self.bucket, self.staging, "example.org")


class S3StorageTests(BucketTestCase, test_content_storage.ContentStorageTests):
    """The contract."""


class FailureTests(BucketTestCase):
    """What happens when the service fails."""

    async def test_refused_requests(self) -> None:
        """Clients are asked to come back, and nothing is half done."""
        sha256 = await self.put(b"x")

        for status, code in ((500, "InternalError"), (503, "SlowDown"), (403, "AccessDenied")):
            self.s3.fault = fails_with(status, code)
            with self.assertRaises(Unavailable):
                await self.put(b"another")
            with self.assertRaises(Unavailable):
                await self.read(sha256, 0, 1)
            with self.assertRaises(Unavailable):
                await self.storage.delete(sha256)
            with self.assertRaises(Unavailable):
                await self.stored()

        self.s3.fault = None
        self.assertEqual(await self.stored(), [sha256])
        self.assertEqual(await self.read(sha256, 0, 1), b"x")

    async def test_a_failure_that_passes(self) -> None:
        """Nobody notices one failed request."""
        sha256 = await self.put(b"x")
        for fault in (fails_with(500), closes, breaks_off):
            self.s3.fault = once(self.s3, fault)

            self.assertEqual(await self.read(sha256, 0, 1), b"x")

    async def test_a_response_that_breaks_off(self) -> None:
        """A part of a file is not taken for the whole."""
        sha256 = await self.put(os.urandom(200_000))
        self.s3.fault = breaks_off

        with self.assertRaises(Unavailable):
            await self.read(sha256, 0, 200_000)

    async def test_an_object_of_another_size(self) -> None:
        """A damaged bucket is no internal error, and no file is padded."""
        sha256 = await self.put(b"four")
        key = f"tests/{path_in_storage(sha256)}"
        for content in (b"fo", b""):
            s3_client().put_object(Bucket=self.name, Key=key, Body=content)

            with self.assertRaises(Unavailable):
                await self.read(sha256, 0, 4)

    async def test_a_damaged_object(self) -> None:
        """What is not what its hash says becomes no thumbnail."""
        sha256 = await self.put(b"right")
        key = f"tests/{path_in_storage(sha256)}"
        s3_client().put_object(Bucket=self.name, Key=key, Body=b"wrong")

        with self.assertRaises(NotFound):
            async with self.storage.local_copy(sha256, 5):
                pass

        self.assertEqual(list((self.folder / "incoming").iterdir()), [])

    async def test_a_part_that_fails(self) -> None:
        """A large upload that fails leaves nothing in the bucket."""
        content = os.urandom(LARGE)
        for status, code in ((403, "AccessDenied"), (404, "NoSuchUpload")):
            self.s3.fault = only("partNumber=3", fails_with(status, code))

            with self.assertRaises(Unavailable):
                await self.put(content)

        self.assertEqual((await self.stored(), unfinished_in(self.name)), ([], []))
        self.s3.fault = None
        sha256 = await self.put(content)
        self.assertEqual(await self.read(sha256, 0, LARGE), content)

    async def test_a_large_object_whose_end_fails(self) -> None:
        """All parts are there, but they are no object."""
        self.s3.fault = lambda relay: (
            relay.command == "POST" and "uploadId" in relay.path and fails_with(500)(relay)
        )

        with self.assertRaises(Unavailable):
            await self.put(os.urandom(LARGE))

        self.assertEqual((await self.stored(), unfinished_in(self.name)), ([], []))

    async def test_an_upload_that_is_cancelled(self) -> None:
        """The parts that are in the bucket already do not stay."""
        self.s3.fault = only("partNumber=4", waits(0.5))
        uploading = Deferred.fromCoroutine(self.put(os.urandom(LARGE)))
        while not any("partNumber=4" in each for each in self.s3.requests):
            await deferLater(reactor, 0.01)

        uploading.cancel()
        await uploading.addErrback(lambda _: None)

        self.assertEqual((await self.stored(), unfinished_in(self.name)), ([], []))

    async def test_what_a_crash_left(self) -> None:
        """Parts of an upload that a crash ended cost money until they are found."""
        for key in ("tests/content/ab/left", "of-another/key"):
            s3_client().create_multipart_upload(Bucket=self.name, Key=key)

        # The service of the tests says of all uploads that they were begun in 2010.
        with patch.object(s3_storage, "UNFINISHED", timedelta(days=20_000)):
            await self.storage.delete_unfinished()
        young = unfinished_in(self.name)
        await self.storage.delete_unfinished()

        self.assertEqual(len(young), 2)
        self.assertEqual(unfinished_in(self.name), ["of-another/key"])

    async def test_a_service_that_is_silent(self) -> None:
        """Those who wait get an error, and what waits is bounded."""
        sha256 = await self.put(b"x")
        self.s3.fault = waits(1.0)

        with self.assertRaises(Unavailable):
            await self.bucket._run(self.bucket._get, path_in_storage(sha256), 0, 1, seconds=0.2)

        self.s3.fault = None
        self.assertEqual(await self.read(sha256, 0, 1), b"x")

    async def test_the_bucket_of_another_server(self) -> None:
        """Two servers that share a prefix would delete each other's contents."""
        sha256 = await self.put(b"x")
        other = S3Storage(self.bucket, self.staging, "other.org")

        with self.assertRaises(ConfigError):
            await other.prepare()
        for attempt in (other.delete(sha256), other.delete_unfinished(), anext(other.pages())):
            with self.assertRaises(BucketUnavailable):
                await attempt

        self.assertEqual(await self.stored(), [sha256])
        await S3Storage(self.bucket, self.staging, "example.org").prepare()

    async def test_a_start_without_the_bucket(self) -> None:
        """The server starts, and media are there as soon as the bucket is."""
        self.s3.fault = fails_with(403, "AccessDenied")
        storage = self.storage = S3Storage(self.bucket, self.staging, "example.org")
        await storage.prepare()
        self.s3.fault = None

        await self.put(b"x")

        self.assertEqual(len(keys_in(self.name)), 1)

    async def test_pages(self) -> None:
        """A bucket is listed a bounded number of objects at a time."""
        hashes = [await self.put(b"%d" % number) for number in range(7)]

        with patch.object(bucket_module, "PAGE", 3):
            pages = [page async for page in self.storage.pages()]

        self.assertEqual([len(page) for page in pages], [3, 3, 1])
        self.assertEqual(sorted(chain.from_iterable(pages)), sorted(hashes))

    async def test_other_objects_do_not_concern_this_server(self) -> None:
        """An operator may have other things in the bucket."""
        for key in ("content/README", "content/ab/README", f"content/abc/{'0' * 61}"):
            s3_client().put_object(Bucket=self.name, Key=f"tests/{key}", Body=b"x")

        self.assertEqual(await self.stored(), [])


class ReaderTests(BucketTestCase):
    """How much readers fetch."""

    async def test_only_what_is_requested_is_fetched(self) -> None:
        """A seek in a film does not fetch the film."""
        content = os.urandom(LARGE)
        sha256 = await self.put(content)
        self.s3.requests.clear()

        got = await self.read(sha256, LARGE - 10, LARGE)

        self.assertEqual(got, content[-10:])
        self.assertEqual(len(self.s3.requests), 1)

    async def test_a_slow_client_holds_one_range(self) -> None:
        """It costs no connection, and memory for no more than is fetched at a time."""
        sha256 = await self.put(os.urandom(LARGE))
        self.s3.requests.clear()
        parts = self.storage.read(sha256, 0, LARGE)
        await anext(parts)
        await deferLater(reactor, 0.1)

        self.assertEqual(len(self.s3.requests), 1)
        self.assertEqual(self.bucket._reads.running, 0)
        await parts.aclose()

    async def test_many_readers_fetch_less_each(self) -> None:
        """The memory for all of them is bounded."""
        sha256 = await self.put(os.urandom(MAX_READ))
        sizes: list[int] = []
        get = self.bucket.get

        async def noted(key: str, start: int, end: int) -> bytes:
            sizes.append(end - start)
            return await get(key, start, end)

        with (
            patch.object(self.bucket, "get", noted),
            patch.object(s3_storage, "READ_MEMORY", 1_000_000),
        ):
            readers = [self.storage.read(sha256, 0, MAX_READ) for _ in range(20)]
            await gatherResults([Deferred.fromCoroutine(anext(each)) for each in readers])
            for each in readers:
                await each.aclose()

        self.assertEqual((sizes[0], sizes[1], sizes[-1]), (1_000_000, 500_000, MIN_READ))
        self.assertEqual(self.storage._readers, 0)


def once(s3: FailingS3, fault: Fault) -> Fault:
    """The fault at the next request only."""

    def fail(relay: Relay) -> bool:
        s3.fault = None
        return fault(relay)

    return fail


def only(part: str, fault: Fault) -> Fault:
    """The fault at requests whose path contains something."""
    return lambda relay: part in relay.path and fault(relay)


def waits(seconds: float) -> Fault:
    """The service takes its time."""

    def wait(relay: Relay) -> bool:
        time.sleep(seconds)
        return False

    return wait

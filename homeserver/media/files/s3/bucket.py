"""A bucket: its objects are written, read, listed and deleted in threads of its own.

So neither the disk nor anything else waits for a slow or unreachable service, and reads do not wait
for uploads. The number of threads is that of the connections. A connection is held for one short
request, never for a client: an object is read range by range.

A large object is written in parts; a part that fails is sent again by itself.

https://docs.aws.amazon.com/AmazonS3/latest/API/
"""

from collections import deque
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import msgspec
from twisted.logger import Logger

from homeserver.concurrency.deferreds import TimedOut, gather_all, with_timeout
from homeserver.concurrency.thread_pools import PoolFull, ThreadPool
from homeserver.config.sections.s3 import S3Settings
from homeserver.media.files.s3.client import check_installed, connect
from homeserver.media.files.s3.file_section import FileSection
from homeserver.protocol.errors import Unavailable

READS, WRITES = 16, 8  # requests at a time, of which those that write move much data
MAX_WAITING_READS, MAX_WAITING_WRITES = 2_000, 5_000
PART_SIZE = 8_388_608  # bytes; a larger object is written in parts of this size
MAX_PARTS = 10_000  # of one object, according to the API
PARALLEL_PARTS = 4
PAGE = 500  # objects that are listed by one request
QUICK_SECONDS = 60.0  # for a request that moves little data
PART_SECONDS = 600.0  # for one that writes a part
GET_ATTEMPTS = 2  # beside those of the client, which end with the head of the response
MISSING = frozenset({"NoSuchKey", "NoSuchUpload", "NotFound", "404"})

T = TypeVar("T")
log = Logger()


class BucketUnavailable(Unavailable):
    """The service cannot be reached, or refuses a request; `reason` is for the operator."""

    def __init__(self, reason: str) -> None:
        super().__init__("The server cannot reach its storage of files at the moment")
        self.reason = reason


class NoSuchObject(BucketUnavailable):
    """There is no such object, or no such upload in parts."""


class StoredObject(msgspec.Struct, frozen=True):
    """An object; `size` is in bytes, and the key is without the prefix."""

    key: str
    size: int


class Bucket:
    """The objects below the configured prefix; keys are without it.

    All methods raise `BucketUnavailable`.
    """

    def __init__(self, reactor: Any, settings: S3Settings) -> None:
        check_installed()
        assert settings.bucket is not None, "the settings have been checked"
        self.place = f"{settings.bucket}/{settings.prefix}"
        self._name = settings.bucket
        self._prefix = settings.prefix
        self._reactor = reactor
        self._settings = settings
        self._credentials = settings.credentials()
        self._reads = ThreadPool(reactor, "S3", size=READS, max_waiting=MAX_WAITING_READS)
        self._writes = ThreadPool(
            reactor, "S3 uploads", size=WRITES, max_waiting=MAX_WAITING_WRITES
        )
        self._client: Any = None
        self._connecting = Lock()
        self._is_failing = False
        self._uploads: set[str] = set()  # ids of uploads in parts that are in progress

    async def put(self, key: str, path: Path, size: int) -> None:
        """Store a file, of `size` bytes, under a key: the whole of it or nothing.

        Raises `FileNotFoundError`.
        """
        if size <= PART_SIZE:
            await self._write(self._put, key, path, size)
        else:
            await self._put_in_parts(key, path, size)

    async def put_bytes(self, key: str, content: bytes) -> None:
        """Store some bytes under a key."""
        await self._call("put_object", key, needs="ETag", Body=content)

    async def get(self, key: str, start: int, end: int) -> bytes:
        """The bytes of an object from `start` to `end`, which is larger. Raises `NoSuchObject`."""
        return await self._run(self._get, key, start, end)

    async def delete(self, key: str) -> None:
        """Delete an object, if there is one; no request is in progress when the call ends."""
        await self._call("delete_object", key, seconds=None)

    async def list_page(self, prefix: str, after: str = "") -> list[StoredObject]:
        """A page of the objects whose keys begin so, in the order of the keys, after one key."""
        return await self._run(self._list, prefix, after)

    async def abort_unfinished(self, prefix: str, older_than: timedelta) -> int:
        """Abort uploads in parts that were begun long ago; their number."""
        aborted = 0
        place: dict[str, str] = {}
        until = datetime.now(UTC) - older_than
        while True:
            page = await self._run(
                lambda client, place=place: client.list_multipart_uploads(
                    Bucket=self._name, Prefix=self._prefix + prefix, MaxUploads=PAGE, **place
                )
            )
            for upload in page.get("Uploads", []):
                if upload["Initiated"] < until and upload["UploadId"] not in self._uploads:
                    await self._abort(upload["Key"].removeprefix(self._prefix), upload["UploadId"])
                    aborted += 1
            markers = ("KeyMarker", "UploadIdMarker")
            place = {each: page[f"Next{each}"] for each in markers if page.get(f"Next{each}")}
            if not page.get("IsTruncated") or not place:
                return aborted

    async def _put_in_parts(self, key: str, path: Path, size: int) -> None:
        part_size = max(PART_SIZE, -(-size // MAX_PARTS))
        begun = await self._call("create_multipart_upload", key, needs="UploadId")
        upload_id = begun["UploadId"]
        self._uploads.add(upload_id)
        try:
            tags = await self._put_parts(key, upload_id, path, size, part_size)
            parts = [{"PartNumber": number, "ETag": tags[number]} for number in sorted(tags)]
            await self._call(
                "complete_multipart_upload",
                key,
                needs="ETag",
                UploadId=upload_id,
                MultipartUpload={"Parts": parts},
                seconds=PART_SECONDS,
            )
        except BaseException:
            # Whatever happens here, `abort_unfinished` will find the upload.
            await self._abort_quietly(key, upload_id)
            raise
        finally:
            self._uploads.discard(upload_id)

    async def _put_parts(
        self, key: str, upload_id: str, path: Path, size: int, part_size: int
    ) -> dict[int, str]:
        """The tags of all parts by their numbers."""
        waiting = deque(enumerate(range(0, size, part_size), 1))
        tags: dict[int, str] = {}

        async def put_some() -> None:
            try:
                while waiting:
                    number, start = waiting.popleft()
                    count = min(part_size, size - start)
                    more = {"UploadId": upload_id, "PartNumber": number}
                    tags[number] = await self._write(self._put_part, key, path, start, count, more)
            except BaseException:
                waiting.clear()  # the others end as soon as they can
                raise

        await gather_all([put_some() for _ in range(PARALLEL_PARTS)])
        return tags

    async def _abort_quietly(self, key: str, upload_id: str) -> None:
        try:
            await self._abort(key, upload_id)
        except BucketUnavailable:
            return

    async def _abort(self, key: str, upload_id: str) -> None:
        try:
            await self._call("abort_multipart_upload", key, UploadId=upload_id)
        except NoSuchObject:
            return  # it has ended meanwhile

    async def _call(
        self,
        operation: str,
        key: str,
        *,
        needs: str | None = None,
        seconds: float | None = QUICK_SECONDS,
        **arguments: Any,
    ) -> Any:
        """The response to a request, which `needs` this field."""

        def call(client: Any) -> Any:
            response = getattr(client, operation)(
                Bucket=self._name, Key=self._prefix + key, **arguments
            )
            if needs is not None:
                _require(response, needs)
            return response

        return await self._run(call, seconds=seconds)

    async def _write(self, function: Callable[..., T], *arguments: Any) -> T:
        return await self._run(function, *arguments, pool=self._writes, seconds=PART_SECONDS)

    async def _run(
        self,
        function: Callable[..., T],
        *arguments: Any,
        pool: ThreadPool | None = None,
        seconds: float | None = QUICK_SECONDS,
    ) -> T:
        """The result of a function of the client, in a thread. Raises `NoSuchObject`, too."""
        try:
            running = (pool or self._reads).run(self._in_thread, function, arguments)
            if seconds is None:
                result = await running
            else:
                result = await with_timeout(running, seconds, self._reactor)
        except (PoolFull, TimedOut) as error:
            raise self._failed(str(error)) from error
        except NoSuchObject:
            raise  # the bucket itself is well
        except BucketUnavailable as error:
            raise self._failed(error.reason) from error
        if self._is_failing:
            self._is_failing = False
            log.info("the bucket {place} is available again", place=self.place)
        return result

    def _failed(self, reason: str) -> BucketUnavailable:
        if not self._is_failing:
            self._is_failing = True
            log.error("the bucket {place} fails: {reason}", place=self.place, reason=reason)
        return BucketUnavailable(reason)

    def _in_thread(self, function: Callable[..., T], arguments: tuple[Any, ...]) -> T:
        from botocore.exceptions import BotoCoreError, ClientError
        from botocore.parsers import ResponseParserError

        try:
            return function(self._connected(), *arguments)
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code"))
            if code in MISSING:
                raise NoSuchObject(str(error)) from None
            raise BucketUnavailable(str(error)) from None
        except FileNotFoundError:
            raise  # the file that was to be stored
        except (BotoCoreError, OSError) as error:
            raise BucketUnavailable(str(error) or type(error).__name__) from None
        except (ResponseParserError, LookupError, ValueError, RecursionError) as error:
            # A proxy before the service, perhaps, or the wrong endpoint. The client follows
            # redirects by calling itself.
            reason = f"the response is not one of S3: {type(error).__name__}: {error}"
            raise BucketUnavailable(reason) from None

    def _connected(self) -> Any:
        with self._connecting:
            if self._client is None:
                try:
                    self._client = connect(self._settings, self._credentials, READS + WRITES)
                except ValueError as error:  # such as an endpoint that is not a URL
                    raise BucketUnavailable(str(error)) from None
            return self._client

    def _put(self, client: Any, key: str, path: Path, size: int) -> None:
        with FileSection(path, 0, size) as body:
            response = client.put_object(
                Bucket=self._name, Key=self._prefix + key, Body=body, ContentMD5=body.md5()
            )
        _require(response, "ETag")

    def _put_part(
        self, client: Any, key: str, path: Path, start: int, size: int, more: dict[str, Any]
    ) -> str:
        with FileSection(path, start, size) as body:
            response = client.upload_part(
                Bucket=self._name, Key=self._prefix + key, Body=body, ContentMD5=body.md5(), **more
            )
        return str(response["ETag"])

    def _list(self, client: Any, prefix: str, after: str) -> list[StoredObject]:
        more = {"StartAfter": self._prefix + after} if after else {}
        page = client.list_objects_v2(
            Bucket=self._name, Prefix=self._prefix + prefix, MaxKeys=PAGE, **more
        )
        objects = [
            StoredObject(each["Key"].removeprefix(self._prefix), each["Size"])
            for each in page.get("Contents", [])
        ]
        if any(each.key <= after for each in objects):
            raise BucketUnavailable(f"the service lists objects again that precede {after}")
        return objects

    def _get(self, client: Any, key: str, start: int, end: int) -> bytes:
        from botocore.exceptions import BotoCoreError

        for left in reversed(range(GET_ATTEMPTS)):
            response = client.get_object(
                Bucket=self._name, Key=self._prefix + key, Range=f"bytes={start}-{end - 1}"
            )
            with closing(response["Body"]) as body:
                if response["ContentLength"] != end - start:
                    raise BucketUnavailable(f"the object {key} does not have the size of its row")
                try:
                    return bytes(body.read())
                except BotoCoreError:
                    if not left:
                        raise
        raise AssertionError("the last attempt returns or raises")


def _require(response: dict[str, Any], field: str) -> None:
    """Raise `BucketUnavailable` for the response of something else, such as the page of a proxy.

    It may have the status 200, though nothing was stored.
    """
    if field not in response:
        raise BucketUnavailable(f"the response is not one of S3: it has no {field}")

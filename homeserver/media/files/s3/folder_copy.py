"""A copy of a local media folder in a bucket, for a server that is to use the bucket from then on.

It can be interrupted and repeated at any time: an object is there as a whole or not at all, so a
file whose object has its size has been copied. What is sent is what the hash in the file's name
says, and the service compares the MD5 of what arrives.
"""

import hashlib
from collections import deque
from collections.abc import Callable
from pathlib import Path

import msgspec

from homeserver.concurrency.deferreds import gather_all
from homeserver.media.files.content_storage import CONTENT, hash_in
from homeserver.media.files.disk import Disk
from homeserver.media.files.s3.bucket import Bucket

PARALLEL_FILES = 4
HASHED_AT_ONCE = 1_048_576  # bytes


class CopyCount(msgspec.Struct):
    """Numbers of files: `copied` now, or `present` before; `damaged` ones are not copied."""

    copied: int = 0
    copied_bytes: int = 0
    present: int = 0
    damaged: int = 0


class FolderCopy:
    """The copy of one media folder. `report` is called with lines for the operator."""

    def __init__(
        self, folder: Path, disk: Disk, bucket: Bucket, report: Callable[[str], None]
    ) -> None:
        self._folder = folder
        self._disk = disk
        self._bucket = bucket
        self._report = report
        self._count = CopyCount()

    async def run(self) -> CopyCount:
        """Copy all contents that the bucket lacks. Raises `BucketUnavailable` or `OSError`."""
        for number in range(256):
            await self._copy_folder(f"{CONTENT}/{number:02x}/")
        return self._count

    async def _copy_folder(self, name: str) -> None:
        local = await self._disk.run(self._contents, name)
        if not local:
            return
        present = await self._sizes_in_bucket(name)
        waiting = deque(path for path, size in local.items() if present.get(path) != size)
        self._count.present += len(local) - len(waiting)

        async def copy_some() -> None:
            try:
                while waiting:
                    await self._copy(waiting.popleft())
            except BaseException:
                waiting.clear()  # the others end as soon as they can
                raise

        await gather_all([copy_some() for _ in range(PARALLEL_FILES)])

    async def _copy(self, path: str) -> None:
        file = self._folder / path
        try:
            size, sha256 = await self._disk.run(_hash, file)
            if sha256 != hash_in(path):
                self._count.damaged += 1
                self._report(f"damaged, and not copied: {file}")
                return
            await self._bucket.put(path, file, size)
        except FileNotFoundError:
            return  # the running server has deleted it
        self._count.copied += 1
        self._count.copied_bytes += size

    async def _sizes_in_bucket(self, prefix: str) -> dict[str, int]:
        sizes: dict[str, int] = {}
        after = ""
        while page := await self._bucket.list_page(prefix, after):
            sizes |= {each.key: each.size for each in page}
            after = page[-1].key
        return sizes

    def _contents(self, name: str) -> dict[str, int]:
        """The sizes of the contents in a folder by their paths."""
        try:
            names = sorted(entry.name for entry in (self._folder / name).iterdir())
        except FileNotFoundError:
            return {}
        paths = [path for each in names if hash_in(path := name + each) is not None]
        return {path: _size(self._folder / path) for path in paths}


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return -1  # the running server has deleted it


def _hash(file: Path) -> tuple[int, bytes]:
    digest, size = hashlib.sha256(), 0
    with file.open("rb") as content:
        while part := content.read(HASHED_AT_ONCE):
            digest.update(part)
            size += len(part)
    return size, digest.digest()

"""Where contents are stored: a local folder (`local_storage.py`) or a bucket (`s3/`)."""

import re
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

from homeserver.media.files.incoming_file import IncomingFile

CONTENT = "content"
HASH = re.compile("[0-9a-f]{64}")


class ContentStorage(Protocol):
    """Stores contents under their SHA-256.

    It knows no names: `ContentStore` decides what is stored and deleted, and calls `put` and
    `delete` of one content one after the other. All methods raise `Unavailable` if the storage
    cannot be reached.
    """

    async def prepare(self) -> None:
        """Get ready, at a start of the server."""

    async def put(self, incoming: IncomingFile, sha256: bytes) -> None:
        """Store a closed file durably; the same content may be stored again.

        The incoming file may be moved away, or stay.
        """

    def read(self, sha256: bytes, start: int, end: int) -> AsyncGenerator[bytes, None]:
        """The bytes from `start` to `end`, which exist according to the content's row.

        Raises `NotFound` before the first part if the content is missing.
        """

    def local_copy(self, sha256: bytes, size: int) -> AbstractAsyncContextManager[Path]:
        """A file with the content, of `size` bytes, which nobody may change.

        Raises `NotFound`; or there is no such file, if the content is missing.
        """

    async def delete(self, sha256: bytes) -> None:
        """Delete a content, if it is there; it is gone when the call returns, or it fails."""

    async def delete_unfinished(self) -> None:
        """Delete what uploads of former runs have left, if `prepare` does not."""

    def pages(self) -> AsyncGenerator[list[bytes], None]:
        """The hashes of all stored contents, a bounded number at a time."""


def path_in_storage(sha256: bytes) -> str:
    """The path of a content in a storage: its hash in hexadecimal, after two digits a slash."""
    digits = sha256.hex()
    return f"{CONTENT}/{digits[:2]}/{digits[2:]}"


def hash_in(path: str) -> bytes | None:
    """The hash of the content at a path; `None` for what this server has not stored."""
    first, _, rest = path.removeprefix(f"{CONTENT}/").partition("/")
    if len(first) != 2 or not HASH.fullmatch(first + rest):
        return None
    return bytes.fromhex(first + rest)

"""An arriving file: one of another server, which clients read while it is being received.

It goes to disk as it comes, and each reader follows at its own speed: a slow client delays neither
the transfer nor other readers, and costs no memory.
"""

import os
from collections.abc import AsyncGenerator
from contextlib import aclosing

from twisted.internet.defer import Deferred

from homeserver.media.files.content_store import ContentStore
from homeserver.media.files.incoming_file import IncomingFile
from homeserver.media.files.stored_file import PART_SIZE, read_at
from homeserver.media.served_file import ServedFile
from homeserver.protocol.errors import MatrixError, RemoteTooLarge
from homeserver.protocol.media.content_types import normal_content_type

EARLY_SIZE = 262_144  # bytes after which readers begin; a smaller file is complete at once


class ArrivingFile:
    """One file; `stored` when it is complete.

    `progress` counts the events of the transfer, so that one that stalls is noticed.
    """

    def __init__(self, store: ContentStore, max_size: int) -> None:
        self.content_type = normal_content_type(None)
        self.filename: str | None = None
        self.size: int | None = None  # as the other server named it
        self.stored: ServedFile | None = None
        self.progress = 0
        self._store = store
        self._max_size = max_size
        self._incoming: IncomingFile | None = None
        self._error: MatrixError | None = None
        self._waiting: list[Deferred[None]] = []

    def receive_into(self, incoming: IncomingFile) -> None:
        """Write what arrives to this file."""
        self._incoming = incoming

    def begin(self, content_type: str | None, filename: str | None, size: int | None) -> None:
        """The file begins (`FileSink`)."""
        self._check_size(size or 0)
        self.content_type = normal_content_type(content_type)
        self.filename = filename
        self.size = size
        self._wake()

    async def write(self, parts: list[bytes]) -> None:
        """Some bytes have arrived (`FileSink`)."""
        incoming = self._incoming
        assert incoming is not None, "the transfer has begun"
        self._check_size(incoming.size + sum(map(len, parts)))
        await incoming.write(parts)
        self._wake()

    def complete(self, stored: ServedFile) -> None:
        """The file is stored."""
        self.stored = stored
        self._wake()

    def fail(self, error: MatrixError) -> None:
        """The rest will not come."""
        self._error = error
        self._wake()

    async def readable(self) -> None:
        """Wait until readers can begin, with the whole file or with its beginning.

        Raises the error of the transfer.
        """
        while self.stored is None and self._received < EARLY_SIZE:
            await self._change()

    async def completed(self) -> ServedFile:
        """Wait for the whole file. Raises the error of the transfer."""
        while self.stored is None:
            await self._change()
        return self.stored

    async def parts(self) -> AsyncGenerator[bytes, None]:
        """The bytes of the file, as they arrive. Raises the error of the transfer."""
        await self.readable()
        try:
            fd = await self._store.disk.open(self._open)
        except FileNotFoundError:
            # It is stored or discarded, and that, or the error of its transfer, is still to come.
            stored = await self.completed()
            async with aclosing(self._store.read(stored.sha256, 0, stored.size)) as parts:
                async for part in parts:
                    yield part
            return
        place = 0
        try:
            while True:
                while place < self._received:
                    size = min(PART_SIZE, self._received - place)
                    part = await read_at(self._store.disk, fd, size, place)
                    place += len(part)
                    yield part
                if self.stored is not None:
                    return
                await self._change()
        finally:
            os.close(fd)

    @property
    def _received(self) -> int:
        return 0 if self._incoming is None else self._incoming.size

    def _open(self) -> int:
        assert self._incoming is not None, "the transfer has begun"
        return os.open(self._incoming.path, os.O_RDONLY | os.O_CLOEXEC)

    def _check_size(self, size: int) -> None:
        if size > self._max_size:
            raise RemoteTooLarge(f"Media of other servers may have {self._max_size} bytes here")

    async def _change(self) -> None:
        if self._error is not None:
            raise self._error.fresh()
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        await waiting
        if self._error is not None:
            raise self._error.fresh()

    def _wake(self) -> None:
        self.progress += 1
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if not each.called:
                each.callback(None)

"""Bounds of uploads in progress: their number, the space on the disk, and open files."""

import os
import tempfile
import time
from pathlib import Path
from threading import Event, current_thread
from typing import Any
from unittest.mock import patch

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from homeserver.concurrency.thread_pools import ThreadPool
from homeserver.media.files.disk import Disk, NoSpace
from homeserver.media.files.incoming_file import CHECKED_EVERY, IncomingFile
from homeserver.media.files.stored_file import read_parts
from homeserver.media.upload_quotas import MAX_CONCURRENT
from homeserver.protocol.errors import Unavailable
from tests.media.media_client import UPLOAD, MediaTestCase


class ConcurrentUploadTests(MediaTestCase):
    async def test_one_user_cannot_hold_all_uploads(self) -> None:
        """Slow uploads of one user cost a bounded number of files; others can still upload."""
        head = f"POST {UPLOAD} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {self.alice.token}\r\n"
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.server.ports[0])
        wires = [await connectProtocol(endpoint, Protocol()) for _ in range(MAX_CONCURRENT)]
        for wire in wires:
            wire.transport.write(f"{head}Content-Length: 1000\r\n\r\nx".encode())
        quotas = self.server.parts.media.quotas
        while quotas.running < MAX_CONCURRENT:
            await deferLater(reactor, 0.01)
        bob = await self.register("bob")

        refused = await self.send("POST", UPLOAD, b"x", by=self.alice)
        await self.upload(b"x", by=bob)
        for wire in wires:
            wire.transport.abortConnection()
        while quotas.running:
            await deferLater(reactor, 0.01)

        self.assertEqual((refused.status, refused.errcode), (429, "M_LIMIT_EXCEEDED"))
        await self.upload(b"again")


class DiskTests(TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "file"

    def incoming(
        self, *, threads: int = 1, waiting: int = 10, min_free_space: int = 1 << 60
    ) -> IncomingFile:
        """A file on a disk that has less space than it should."""
        pool = ThreadPool(reactor, "disk", size=threads, max_waiting=waiting)
        return IncomingFile(Disk(pool, min_free_space=min_free_space), self.path)

    async def test_a_disk_that_fills_up_meanwhile(self) -> None:
        """A file of unknown size does not take the last space from the database."""
        file = self.incoming()
        await file.write([b"x" * (CHECKED_EVERY - 1)])

        with self.assertRaises(NoSpace):
            await file.write([b"xx"])

        await file.discard()
        self.assertFalse(self.path.exists())

    async def test_too_many_waiting_writes(self) -> None:
        """A client is asked to come back, and its file does not stay."""
        file = self.incoming(waiting=0)
        running = Deferred.fromCoroutine(file._disk.run(time.sleep, 0.05))
        with self.assertRaises(Unavailable):
            await file.write([b"x"])

        await file.discard()
        await running

    async def test_a_write_that_is_given_up(self) -> None:
        """What a thread still writes gets into no file that has been opened since."""
        file, write = self.incoming(threads=2, min_free_space=0), os.write
        begun, gate = Event(), Event()

        def slow(fd: int, data: memoryview) -> int:
            if current_thread().name == "disk":
                begun.set()
                gate.wait()
            return write(fd, data)

        with patch.object(os, "write", slow):
            writing = Deferred.fromCoroutine(file.write([b"of another server"]))
            while not begun.is_set():
                await deferLater(reactor, 0.01)
            writing.cancel()
            await self.assertFailure(writing, CancelledError)
            discarding = Deferred.fromCoroutine(file.discard())
            await deferLater(reactor, 0.05)
            other = self.path.with_name("other")
            with other.open("wb"):
                gate.set()
                await discarding
                await self.until_no_thread(file)
                self.assertEqual(other.read_bytes(), b"")

        self.assertFalse(self.path.exists())

    async def test_a_file_that_nobody_waits_for_is_closed(self) -> None:
        """Clients that leave at once do not use up the descriptors of the process."""
        self.path.write_bytes(b"x")
        file, open_now = self.incoming(), os.open
        begun, gate = Event(), Event()
        opened: list[int] = []

        def slow(*arguments: Any, **options: Any) -> int:
            if current_thread().name == "disk":
                begun.set()
                gate.wait()
                opened.append(open_now(*arguments, **options))
                return opened[-1]
            return open_now(*arguments, **options)

        with patch.object(os, "open", slow):
            reading = Deferred.fromCoroutine(anext(read_parts(file._disk, self.path, 0, 1)))
            while not begun.is_set():
                await deferLater(reactor, 0.01)
            reading.cancel()
            await self.assertFailure(reading, CancelledError)
            gate.set()
            await self.until_no_thread(file)

        with self.assertRaises(OSError):
            os.fstat(opened[0])

    async def until_no_thread(self, file: IncomingFile) -> None:
        while file._disk._pool.running:
            await deferLater(reactor, 0.01)

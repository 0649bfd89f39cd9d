"""Files of another server while they arrive: readers, breaks, stalls and bounds."""

import gc
import os
import traceback
import weakref
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar
from unittest.mock import patch

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.task import deferLater

from homeserver.media.remote.arriving_file import ArrivingFile
from homeserver.media.remote.remote_files import (
    MAX_FETCHES,
    MAX_FETCHES_OF_SERVER,
    MAX_STALLS,
    MAX_WAITING_OF_SERVER,
)
from homeserver.media.remote.remote_media_port import FileSink
from homeserver.media.served_file import ServedFile
from homeserver.media.upload_waits import MAX_WAIT_MS
from homeserver.protocol.errors import RemoteServerFailed
from homeserver.protocol.media.media_ids import MediaId
from tests.media.media_client import DOWNLOAD, Got, MediaTestCase
from tests.web.raw_http import Wire

Script = Callable[[FileSink], Awaitable[None]]
EARLY = 300_000
WHOLE = 700_000


class Piece:
    """What has arrived of a file."""


class ScriptedRemote:
    """Other servers, which do what the test says."""

    def __init__(self, script: Script) -> None:
        self.fetched: list[MediaId] = []
        self._script = script

    async def fetch(self, name: MediaId, sink: FileSink, timeout_ms: int) -> None:
        self.fetched.append(name)
        await self._script(sink)


class ArrivingFileTests(MediaTestCase):
    settings: ClassVar = {"media": {"max_remote_file": 1_000_000}}

    async def setUp(self) -> None:
        await super().setUp()
        self.gate: Deferred[None] = Deferred()
        self.content = os.urandom(WHOLE)
        self.remote = ScriptedRemote(self.send_in_two_parts)
        self.server.parts.media.remote_files._remote = self.remote

    async def send_in_two_parts(self, sink: FileSink) -> None:
        sink.begin("image/png", "a.png", None)
        await sink.write([self.content[:EARLY]])
        await self.gate
        await sink.write([self.content[EARLY:]])

    def script(self, script: Script) -> None:
        """Have other servers do this from now on."""
        self.remote = ScriptedRemote(script)
        self.server.parts.media.remote_files._remote = self.remote

    async def begin(self, file: str) -> Wire:
        """A client that requests a file, and reads what comes."""
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", self.server.ports[0])
        wire = await connectProtocol(endpoint, Wire())
        self.addCleanup(wire.transport.abortConnection)
        wire.request("GET", f"{DOWNLOAD}/{file}", token=self.alice.token)
        return wire

    async def test_clients_read_while_it_arrives(self) -> None:
        """A film begins before the whole of it is here, also for one who comes later."""
        first, second = await self.begin("b.org/abc"), await self.begin("b.org/abc")
        for wire in (first, second):
            await wire.until(lambda data: self.content[EARLY - 1_000 : EARLY] in data)
        late = Deferred.fromCoroutine(self.download("b.org/abc"))

        self.gate.callback(None)

        for wire in (first, second):
            await wire.until(lambda data: data.endswith(b"0\r\n\r\n"))
        self.assertEqual((await late).body, self.content)
        again = await self.download("b.org/abc")
        self.assertEqual((again.body, again.headers["etag"] != ""), (self.content, True))
        self.assertEqual(self.remote.fetched, [MediaId("b.org", "abc")])

    async def test_a_transfer_that_breaks_off(self) -> None:
        """No client takes a part of a file for the whole, and the part is not stored."""
        wire = await self.begin("b.org/abc")
        await wire.until(lambda data: self.content[EARLY - 1_000 : EARLY] in data)

        self.gate.errback(RemoteServerFailed("it broke"))
        await wire.closed

        self.assertFalse(wire.received.endswith(b"0\r\n\r\n"))
        self.assertEqual((await self.download("b.org/abc")).status, 502)
        self.assertEqual(len(self.remote.fetched), 1)
        self.assertEqual(self.stored_files(), [])

    async def test_a_transfer_that_breaks_off_before_a_reader_has_opened_it(self) -> None:
        """The reader gets the error of the transfer, not an internal one."""
        store = self.server.parts.media.store
        incoming, file = await store.begin(), ArrivingFile(store, 1_000_000)
        file.receive_into(incoming)
        await file.write([self.content])
        await incoming.discard()

        reading = Deferred.fromCoroutine(anext(file.parts()))
        await deferLater(reactor, 0.05)
        file.fail(RemoteServerFailed("it broke"))

        await self.assertFailure(reading, RemoteServerFailed)

    async def test_a_reader_that_comes_when_it_is_stored(self) -> None:
        """A client that was slow to begin gets the file from where it is then."""
        store = self.server.parts.media.store
        incoming, file = await store.begin(), ArrivingFile(store, 1_000_000)
        file.receive_into(incoming)
        await file.write([self.content])
        sha256 = await incoming.close()
        await store.keep(incoming, sha256, self.nothing)
        await incoming.discard()

        reading = Deferred.fromCoroutine(self.all_of(file))
        file.complete(ServedFile(sha256, WHOLE, None, None))

        self.assertEqual(await reading, self.content)

    async def test_a_storage_that_is_slow(self) -> None:
        """A file that has arrived is not given up while it is being stored."""
        store, stored = self.server.parts.media.store, Deferred[None]()
        keep = store.keep

        async def keep_slowly(*arguments: Any) -> None:
            await stored
            await keep(*arguments)

        with patch.object(store, "keep", keep_slowly):
            wire = await self.begin("b.org/abc")
            self.gate.callback(None)
            await wire.until(lambda data: self.content[-1_000:] in data)
            for _ in range(MAX_STALLS + MAX_WAIT_MS // 10_000 + 2):
                self.server.parts.media.remote_files._end_stalled()
            stored.callback(None)
            await wire.until(lambda data: data.endswith(b"0\r\n\r\n"))

        self.assertEqual((await self.download("b.org/abc")).body, self.content)

    async def nothing(self) -> None:
        """Write no row."""

    async def all_of(self, file: ArrivingFile) -> bytes:
        """The bytes that a reader gets."""
        return b"".join([part async for part in file.parts()])

    async def test_a_client_that_leaves(self) -> None:
        """The others still get the file."""
        first = await self.begin("b.org/abc")
        await first.until(lambda data: self.content[EARLY - 1_000 : EARLY] in data)
        second = Deferred.fromCoroutine(self.download("b.org/abc"))
        first.transport.abortConnection()
        await first.closed

        self.gate.callback(None)

        self.assertEqual((await second).body, self.content)

    async def test_a_transfer_that_stalls(self) -> None:
        """A server that falls silent does not hold a fetch permanently."""
        wire = await self.begin("b.org/abc")
        await wire.until(lambda data: self.content[EARLY - 1_000 : EARLY] in data)
        files = self.server.parts.media.remote_files

        for _ in range(MAX_STALLS + 2):
            files._end_stalled()
        await wire.closed

        self.assertEqual(self.stored_files(), [])

    async def test_a_file_that_is_too_large(self) -> None:
        """Whether its size was announced or not."""

        async def announced(sink: FileSink) -> None:
            sink.begin(None, None, 1_000_001)

        async def unannounced(sink: FileSink) -> None:
            sink.begin(None, None, None)
            for _ in range(11):
                await sink.write([b"x" * 100_000])

        self.script(announced)
        first = await self.download("b.org/one")
        self.script(unannounced)
        wire = await self.begin("b.org/two")
        await wire.closed
        second = await self.download("b.org/two")

        for got in (first, second):
            self.assertEqual((got.status, got.errcode), (502, "M_TOO_LARGE"))
        self.assertEqual(self.stored_files(), [])

    async def test_a_failure_keeps_nothing_of_its_transfer(self) -> None:
        """Other servers cannot fill the memory by transfers that fail, nor can those who ask."""
        received: list[weakref.ref[Piece]] = []

        async def broken(sink: FileSink) -> None:
            piece = Piece()
            received.append(weakref.ref(piece))
            try:
                raise ValueError(piece)
            except ValueError as error:
                raise RemoteServerFailed("it broke") from error

        self.script(broken)
        for _ in range(10):
            self.assertEqual((await self.download("b.org/abc")).status, 502)
        gc.collect()

        self.assertEqual(len(self.remote.fetched), 1)
        self.assertIsNone(received[0]())
        [failed] = self.server.parts.media.remote_files._failed.values()
        self.assertLess(len(list(traceback.walk_tb(failed.error.__traceback__))), 10)

    async def test_many_files_of_one_server(self) -> None:
        """It cannot make this server wait for it without bound."""
        count = MAX_FETCHES_OF_SERVER + MAX_WAITING_OF_SERVER + 2
        everyone = [
            Deferred.fromCoroutine(self.download(f"b.org/file{n}", by=self.alice))
            for n in range(count)
        ]
        while len(self.server.parts.media.remote_files._fetches) < count - 2:
            await deferLater(reactor, 0.01)
        while sum(one.called for one in everyone) < 2 + MAX_FETCHES_OF_SERVER:
            await deferLater(reactor, 0.01)
            if len(self.remote.fetched) == MAX_FETCHES_OF_SERVER:
                break

        self.assertEqual(len(self.remote.fetched), MAX_FETCHES_OF_SERVER)
        self.gate.callback(None)
        statuses = [got.status for got in await gatherResults(everyone)]
        self.assertEqual((statuses.count(200), statuses.count(429)), (count - 2, 2))

    async def test_a_file_that_waits_for_other_servers(self) -> None:
        """Their slowness is neither held against its server, nor taken from its time."""
        everyone = [
            Deferred.fromCoroutine(self.download(f"s{n}.org/file", by=self.alice))
            for n in range(MAX_FETCHES)
        ]
        while len(self.remote.fetched) < MAX_FETCHES:
            await deferLater(reactor, 0.01)
        files = self.server.parts.media.remote_files
        patience = MAX_STALLS + MAX_WAIT_MS // 10_000

        async def wait_and_check(file: str, checks: int) -> Deferred[Got]:
            waiting = Deferred.fromCoroutine(self.download(file))
            while len(files._fetches) <= MAX_FETCHES:
                await deferLater(reactor, 0.01)
            for fetch in [*files._fetches.values()][:MAX_FETCHES]:
                # This test is about the last one.
                fetch.progress, fetch.stalls = fetch.file.progress, -1_000
            for _ in range(checks):
                files._end_stalled()
            return waiting

        refused = await (await wait_and_check("b.org/file", patience + 1))
        waiting = await wait_and_check("b.org/file", patience)
        slow: Deferred[None] = Deferred()
        content = self.content

        async def begin_late(sink: FileSink) -> None:
            await slow
            sink.begin(None, None, None)
            await sink.write([content])

        self.script(begin_late)
        self.gate.callback(None)
        while not self.remote.fetched:
            await deferLater(reactor, 0.01)
        files._end_stalled()
        slow.callback(None)

        self.assertEqual((refused.status, refused.errcode), (429, "M_LIMIT_EXCEEDED"))
        self.assertEqual((await waiting).status, 200)
        await gatherResults(everyone)

    async def test_no_internal_error(self) -> None:
        """A defect in the exchange is logged, and the client gets an ordinary error."""

        async def broken(sink: FileSink) -> None:
            raise ZeroDivisionError

        self.script(broken)

        got = await self.download("b.org/abc")

        self.assertEqual((got.status, got.errcode), (502, "M_UNKNOWN"))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    async def test_a_stop_ends_transfers(self) -> None:
        """The server does not wait for others when it stops."""
        wire = await self.begin("b.org/abc")
        await wire.until(lambda data: self.content[EARLY - 1_000 : EARLY] in data)

        stopping = Deferred.fromCoroutine(self.server.stop())

        self.assertTrue(await stopping)
        await wire.closed

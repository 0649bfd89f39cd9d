"""Bodies that a handler reads while they arrive: order, back-pressure, limits, and early ends."""

from twisted.internet.defer import Deferred

from homeserver.concurrency.byte_stream import MAX_BUFFERED, ByteStream
from homeserver.protocol.errors import Forbidden, TooLarge
from homeserver.web.request import DRAIN_SECONDS, MAX_DRAINED, BodyIncomplete
from homeserver.web.routes import Auth, Route
from tests.web.raw_http import ServerTestCase, Wire

LIMIT = 8_000_000
MEBIBYTE = 1_048_576


class BodyStreamTests(ServerTestCase):
    def setUp(self) -> None:
        self.read: list[bytes] = []
        self.announced: int | None = None
        self.failed: list[Exception] = []
        self.gate: Deferred[None] | None = None
        self.begun = 0
        self.serve(
            Route("POST", "/upload", self.upload, Auth.USER, max_body=LIMIT),
            Route(
                "POST", "/large", self.upload_to_disk, Auth.USER, max_body=MAX_DRAINED + MEBIBYTE
            ),
            Route("POST", "/never", self.never, Auth.USER, max_body=LIMIT),
        )

    async def upload(self, body: ByteStream) -> dict[str, int]:
        self.begun += 1
        self.announced = body.announced
        try:
            if self.gate is not None:
                await self.gate
            while parts := await body.read():
                self.read += parts
        except Exception as error:
            self.failed.append(error)
            raise
        return {"size": sum(map(len, self.read))}

    async def upload_to_disk(self, body: ByteStream) -> dict[str, int]:
        """An upload whose file is deleted before the response."""
        try:
            return await self.upload(body)
        finally:
            await self.turn(0.05)

    async def never(self, body: ByteStream) -> None:
        raise Forbidden("Not for you")

    async def begin(self, path: str, size: int, token: str = "alice") -> Wire:
        wire = await self.connect()
        wire.request("POST", path, token=token, headers=[("Content-Length", str(size))])
        return wire

    async def test_the_handler_reads_while_the_client_sends(self) -> None:
        """A large upload is on disk while it arrives."""
        wire = await self.begin("/upload", 6)

        wire.write(b"abc")
        await self.until(lambda: self.read == [b"abc"])
        wire.write(b"def")
        answer = await wire.response()

        self.assertEqual(answer.json, {"size": 6})
        self.assertEqual(b"".join(self.read), b"abcdef")
        self.assertEqual(self.announced, 6)

    async def test_the_connection_serves_the_next_request(self) -> None:
        """A client uploads many files over one connection."""
        wire = await self.connect()
        for number in range(3):
            self.read = []
            wire.request("POST", "/upload", b"x" * (number * 100_000), token="alice")

            answer = await wire.response()

            self.assertEqual(answer.json, {"size": number * 100_000})

    async def test_chunks_of_unknown_number(self) -> None:
        """A client need not know the size of a file."""
        wire = await self.connect()
        wire.request("POST", "/upload", token="alice", headers=[("Transfer-Encoding", "chunked")])
        wire.write(b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")

        answer = await wire.response()

        self.assertEqual(answer.json, {"size": 5})
        self.assertIsNone(self.announced)

    async def test_a_slow_handler_pauses_the_connection(self) -> None:
        """Memory for one upload stays bounded however fast the client sends."""
        self.gate = Deferred()
        sent = 4 * 1_048_576
        wire = await self.begin("/upload", sent)
        wire.write(b"x" * sent)
        await self.until(lambda: self.begun)
        await self.turn(0.2)
        request = next(iter(self.server.connections)).request

        waiting = request.stream._buffered

        self.assertGreaterEqual(waiting, MAX_BUFFERED)
        self.assertLess(waiting, MAX_BUFFERED + 131_072)
        self.gate.callback(None)
        self.assertEqual((await wire.response()).json, {"size": sent})

    async def test_a_pause_has_no_deadline_and_the_time_after_it_has(self) -> None:
        """A slow disk of the server is not the fault of the client."""
        self.gate = Deferred()
        wire = await self.begin("/upload", 1_000_000)
        wire.write(b"x" * 900_000)
        await self.until(lambda: self.begun)
        await self.turn(0.1)

        self.clock.advance(1_000)
        self.assertEqual(self.failed, [])
        self.gate.callback(None)
        await self.until(lambda: sum(map(len, self.read)) == 900_000)
        self.clock.advance(self.bounds.request_timeout + 1)
        await wire.closed

        self.assertIsInstance(self.failed[0], BodyIncomplete)

    async def test_a_reader_that_asks_for_much_at_a_time(self) -> None:
        """Each write to a slow disk is worth while, and a paused connection continues for it."""
        paused: list[bool] = []
        stream = ByteStream(None, lambda: paused.append(True), lambda: paused.append(False))
        for _ in range(MAX_BUFFERED // 1_000 + 1):
            stream.feed(b"x" * 1_000)
        self.assertEqual(paused, [True])

        reading = Deferred.fromCoroutine(stream.read(300_000))
        self.assertEqual(paused, [True, False])
        stream.feed(b"y" * 100_000)
        self.assertFalse(reading.called)
        stream.feed(b"z" * 100_000)
        self.assertGreaterEqual(sum(map(len, self.successResultOf(reading))), 300_000)
        rest = Deferred.fromCoroutine(stream.read(300_000))
        stream.feed(b"end")
        stream.end()

        self.assertEqual(self.successResultOf(rest), [b"end"])

    async def test_many_small_chunks(self) -> None:
        """They cost no more memory and work than a few large ones, and stay in their order."""
        stream = ByteStream(None, lambda: None, lambda: None)
        reading = Deferred.fromCoroutine(stream.read(200_000))
        sent = [bytes([number % 256]) * (number % 5) for number in range(100_000)]
        sent[50_000] = b"large" * 10_000
        for part in sent:
            stream.feed(part)
        stream.end()

        parts = self.successResultOf(reading) + await stream.read(200_000)

        self.assertEqual(b"".join(parts), b"".join(sent))
        self.assertLess(len(parts), 20)

    async def test_a_handler_that_refuses_ends_the_connection(self) -> None:
        """The client is still sending: it gets the response, and then the connection ends."""
        wire = await self.begin("/never", 3_000_000)
        answer = await wire.response()
        wire.write(b"x" * 3_000_000)
        await wire.closed

        self.assertEqual((answer.status, answer.json["errcode"]), (403, "M_FORBIDDEN"))
        self.assertEqual(answer.headers["connection"], "close")

    async def test_a_client_that_never_ends_a_refused_body_is_disconnected(self) -> None:
        """A refused client cannot hold a connection."""
        wire = await self.begin("/never", 3_000_000)
        await wire.response()

        self.clock.advance(DRAIN_SECONDS + 1)

        await wire.closed

    async def test_an_announced_body_that_is_too_large_reaches_no_handler(self) -> None:
        """The client learns of it before it sends the file."""
        wire = await self.begin("/upload", LIMIT + 1)

        answer = await wire.response()

        self.assertEqual((answer.status, answer.json["errcode"]), (413, "M_TOO_LARGE"))
        self.assertEqual(self.begun, 0)

    async def test_chunks_beyond_the_limit_end_the_stream(self) -> None:
        """The limit holds for files of unknown size, too."""
        wire = await self.connect()
        wire.request("POST", "/upload", token="alice", headers=[("Transfer-Encoding", "chunked")])
        chunk = b"100000\r\n" + b"x" * 1_048_576 + b"\r\n"
        for _ in range(9):
            wire.write(chunk)
        wire.write(b"0\r\n\r\n")

        answer = await wire.response()
        await wire.closed

        self.assertEqual((answer.status, answer.json["errcode"]), (413, "M_TOO_LARGE"))
        self.assertIsInstance(self.failed[0], TooLarge)

    async def test_a_large_body_beyond_the_limit_gets_its_response(self) -> None:
        """Who has sent much before the refusal learns of it like all others."""
        wire = await self.connect()
        wire.request("POST", "/large", token="alice", headers=[("Transfer-Encoding", "chunked")])
        for _ in range(MAX_DRAINED // MEBIBYTE + 8):
            wire.write(b"100000\r\n" + b"x" * MEBIBYTE + b"\r\n")
        wire.write(b"0\r\n\r\n")

        answer = await wire.response()
        await wire.closed

        self.assertEqual((answer.status, answer.json["errcode"]), (413, "M_TOO_LARGE"))

    async def test_a_wrong_token_is_refused_before_the_body(self) -> None:
        """No stranger fills the disk."""
        for token in ("nobody", "slow-nobody"):
            wire = await self.begin("/upload", 1_000_000, token=token)
            answer = await wire.response()
            self.assertIn(answer.status, (401, 500))
            self.flushLoggedErrors(KeyError)
        self.assertEqual(self.begun, 0)

    async def test_a_token_that_is_checked_while_the_body_arrives(self) -> None:
        """The first upload after a restart waits for the database."""
        wire = await self.connect()
        wire.request("POST", "/upload", b"x" * 500_000, token="slow-alice")

        self.assertEqual((await wire.response()).json, {"size": 500_000})

    async def test_a_lost_connection_ends_the_handler(self) -> None:
        """A client that dies costs nothing."""
        wire = await self.begin("/upload", 100)
        wire.write(b"abc")
        await self.until(lambda: self.read)

        wire.transport.abortConnection()
        await self.until(lambda: self.failed)

        self.assertIsInstance(self.failed[0], BodyIncomplete)

    async def test_a_client_that_waits_for_100_continue_is_refused_without_it(self) -> None:
        """The file is not sent in vain."""
        wire = await self.connect()
        headers = [("Content-Length", "5000"), ("Expect", "100-continue")]
        wire.request("POST", "/never", token="alice", headers=headers)

        answer = await wire.response()

        self.assertEqual(answer.status, 403)

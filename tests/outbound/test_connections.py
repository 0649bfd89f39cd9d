"""Connections: clients that are slow, greedy, impatient or broken."""

from typing import Any

from homeserver.web.pipeline import RequestLimits
from tests.web.example_api import NotesTestCase
from tests.web.raw_http import Wire


class KeepAliveTests(NotesTestCase):
    async def test_connection_serves_one_request_after_another(self) -> None:
        """A TLS handshake for each message would be slow."""
        wire = await self.connect()

        for _ in range(3):
            wire.request("GET", "/_matrix/client/v3/whoami", token="slow-alice")
            response = await wire.response()
            self.assertEqual(response.status, 200)
            self.assertNotIn("connection", response.headers)

    async def test_pipelined_requests_are_answered_in_order(self) -> None:
        """A client may send the next request before it has read the last answer."""
        wire = await self.connect()

        for name in ("a", "b", "c"):
            wire.request("GET", f"/_matrix/client/v3/notes/{name}")
        wire.request("GET", "/poll")
        wire.request("GET", "/raw")

        answers = [(await wire.response()).json for _ in "abc"]
        await self.until(lambda: self.notes.waiting)
        self.assertEqual(wire.received, b"")
        self.notes.waiting[0].callback(None)
        answers += [(await wire.response()).json for _ in range(2)]
        self.assertEqual(
            answers,
            [{"name": "a"}, {"name": "b"}, {"name": "c"}, {"waited": True}, {"as": "it is"}],
        )

    async def test_many_pipelined_requests_do_not_exhaust_the_stack(self) -> None:
        """Ten thousand requests in one packet would be a cheap attack."""
        wire = await self.connect()

        wire.write(b"GET /raw HTTP/1.1\r\nHost: test\r\n\r\n" * 2000)

        for _ in range(2000):
            self.assertEqual((await wire.response()).status, 200)

    async def test_connection_ends_when_the_client_wants_it(self) -> None:
        """HTTP/1.0 and `Connection: close` mean one request only."""
        for head in (b"GET /raw HTTP/1.1\r\nHost: a\r\nConnection: close", b"GET /raw HTTP/1.0"):
            wire = await self.connect()

            wire.write(head + b"\r\n\r\n")

            self.assertEqual((await wire.response()).headers["connection"], "close")
            await wire.closed

    async def test_bytes_may_come_one_at_a_time(self) -> None:
        """TCP gives no guarantee about packets."""
        wire = await self.connect()

        for byte in b"PUT /_matrix/client/v3/notes/%61?access_token=alice HTTP/1.1\r\nHost: a\r\n":
            wire.write(bytes([byte]))
            await self.turn()
        wire.write(b'Content-Length: 14\r\n\r\n{"text": ')
        await self.turn()
        wire.write(b'"hi"}')

        self.assertEqual((await wire.response()).status, 200)
        self.assertEqual(self.notes.calls[0][1], "a")


class DeadlineTests(NotesTestCase):
    async def test_idle_connection_is_closed(self) -> None:
        """Sockets are finite."""
        wire = await self.connect()
        wire.request("GET", "/raw")
        await wire.response()

        self.clock.advance(19)
        await self.turn()
        self.assertEqual(len(self.server.connections), 1)
        self.clock.advance(2)

        await wire.closed
        self.assertEqual(self.clock.getDelayedCalls(), [])

    async def test_request_starts_a_new_idle_time(self) -> None:
        """A client that asks every ten seconds keeps its connection."""
        wire = await self.connect()

        for _ in range(5):
            wire.request("GET", "/raw")
            self.assertEqual((await wire.response()).status, 200)
            self.clock.advance(15)

        self.assertEqual(len(self.server.connections), 1)

    async def test_dripping_head_does_not_hold_a_connection(self) -> None:
        """A header byte now and then would hold a socket without end."""
        wire = await self.connect()

        wire.write(b"GET /raw HTTP/1.1\r\n")
        for _ in range(6):
            await self.turn(0.01)
            self.clock.advance(2)
            wire.write(b"A")

        await wire.closed
        self.assertEqual(wire.received, b"")

    async def test_dripping_body_does_not_hold_a_connection(self) -> None:
        """The same in the body."""
        wire = await self.connect()

        wire.write(b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n")
        for _ in range(6):
            await self.turn(0.01)
            self.clock.advance(2)
            wire.write(b"A")

        await wire.closed

    async def test_long_poll_has_no_deadline(self) -> None:
        """The handler decides how long a response takes."""
        wire = await self.connect()
        wire.request("GET", "/poll")
        await self.until(lambda: self.notes.waiting)

        self.clock.advance(1000)
        self.notes.waiting[0].callback(None)

        self.assertEqual((await wire.response()).json, {"waited": True})
        self.clock.advance(21)
        await wire.closed


class SlowReaderTests(NotesTestCase):
    async def test_response_may_be_read_slowly_but_not_without_end(self) -> None:
        """A first sync over a slow line succeeds; a client that stopped reading is disconnected."""
        wire = await self.connect()
        wire.request("GET", "/large")
        await wire.response_begins()
        wire.transport.pauseProducing()

        self.clock.advance(21)
        await self.turn(0.01)
        self.assertEqual(len(self.server.connections), 1)
        wire.transport.resumeProducing()
        await wire.until(lambda data: len(data) > 10_000_000)
        wire.transport.pauseProducing()
        await self.turn(0.01)
        self.clock.advance(21)
        await self.turn(0.01)
        self.assertEqual(len(self.server.connections), 1)
        # The response progresses until all buffers are full, though the client reads nothing.
        for _ in range(4):
            self.clock.advance(21)
            await self.turn(0.05)

        self.assertEqual(len(self.server.connections), 0)


class BodySizeTests(NotesTestCase):
    path = "/_matrix/client/v3/notes/a?access_token=alice"

    async def test_too_large_body_is_refused_by_its_announcement(self) -> None:
        """A client need not send a gigabyte to learn that it is too much."""
        wire = await self.connect()

        wire.write(f"PUT {self.path} HTTP/1.1\r\nContent-Length: 1001\r\n\r\n".encode())

        response = await wire.response()
        self.assertEqual((response.status, response.json["errcode"]), (413, "M_TOO_LARGE"))
        self.assertEqual(response.headers["connection"], "close")
        self.assertEqual(response.headers["access-control-allow-origin"], "*")

    async def test_too_large_body_without_announcement_is_refused_when_it_grows(self) -> None:
        """A chunked body does not announce its length."""
        wire = await self.connect()

        wire.write(f"PUT {self.path} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        wire.write(b"1f4\r\n" + b"x" * 500 + b"\r\n")
        wire.write(b"1f5\r\n" + b"x" * 501 + b"\r\n")

        self.assertEqual((await wire.response()).status, 413)

    async def test_client_that_keeps_sending_still_reads_the_refusal(self) -> None:
        """Closing at once would reset the connection, and the response would be lost."""
        wire = await self.connect()

        wire.write(f"PUT {self.path} HTTP/1.1\r\nContent-Length: 3000000\r\n\r\n".encode())
        for _ in range(30):
            wire.write(b"x" * 100_000)
            await self.turn()

        self.assertEqual((await wire.response()).status, 413)
        await wire.closed
        self.assertEqual(self.finished[0][2], 413)

    async def test_client_that_never_stops_is_disconnected(self) -> None:
        """Even discarded bytes cost something."""
        wire = await self.connect()

        wire.write(f"PUT {self.path} HTTP/1.1\r\nContent-Length: 99000000\r\n\r\n".encode())
        await wire.response()
        [connection] = self.server.connections
        request = connection.request
        while self.server.connections:
            wire.write(b"x" * 1_000_000)
            await self.turn()

        self.assertLess(request._received, 20_000_000)

    async def test_client_that_asks_first_is_not_invited_to_send(self) -> None:
        """`Expect: 100-continue` saves the client the trouble."""
        wire = await self.connect()
        head = "Content-Length: 1001\r\nExpect: 100-continue"

        wire.write(f"PUT {self.path} HTTP/1.1\r\n{head}\r\n\r\n".encode())

        self.assertEqual((await wire.response()).status, 413)

    async def test_client_that_asks_first_may_send_what_fits(self) -> None:
        """Programs such as curl use `Expect` for bodies of more than a kilobyte."""
        wire = await self.connect()
        wire.write(b"POST /upload HTTP/1.1\r\nContent-Length: 5000\r\nExpect: 100-continue\r\n\r\n")

        self.assertEqual((await wire.response(bodiless=True)).status, 100)
        wire.write(b"x" * 5000)

        self.assertEqual((await wire.response()).json, {"size": 5000})

    async def test_route_may_have_a_bound_of_its_own(self) -> None:
        """Key backups are larger than messages."""
        fits = await self.ask("POST", "/upload", b"x" * 5000)
        exceeds = await self.ask("POST", "/upload", b"x" * 5001)

        self.assertEqual((fits.json, exceeds.status), ({"size": 5000}, 413))

    async def test_chunked_body_is_put_together(self) -> None:
        """Some clients stream their bodies."""
        wire = await self.connect()

        wire.write(b"POST /upload HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
        wire.write(b"3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n")

        self.assertEqual((await wire.response()).json, {"size": 7})


class UnauthenticatedBodyTests(NotesTestCase):
    """Bodies that will not be used are refused before they are sent."""

    bounds = RequestLimits(max_body=1_000_000, request_timeout=10.0, idle_timeout=20.0)
    note = "/_matrix/client/v3/notes/a"

    async def test_the_head_alone_is_refused_where_it_decides(self) -> None:
        """A client without an account cannot make the server store a large body."""
        for request, status, errcode in (
            (f"PUT {self.note}", 401, "M_MISSING_TOKEN"),
            (f"DELETE {self.note}", 405, "M_UNRECOGNIZED"),
            ("PUT /_matrix/client/v3/nothing", 404, "M_UNRECOGNIZED"),
            ("POST /write", 413, "M_TOO_LARGE"),
        ):
            for length in (
                "Content-Length: 65537\r\nExpect: 100-continue",
                "Content-Length: 900000",
            ):
                wire = await self.connect()
                wire.write(f"{request} HTTP/1.1\r\n{length}\r\n\r\n".encode())
                response = await wire.response()
                self.assertEqual((response.status, response.json["errcode"]), (status, errcode))
                self.assertEqual(response.headers["connection"], "close")
        self.assertEqual(self.server._gate.bodies.taken, 0)

    async def test_a_small_body_is_read_and_the_connection_stays_open(self) -> None:
        """A client with a missing token need not reconnect."""
        wire = await self.connect()

        wire.request("PUT", self.note, b"{}")
        self.assertEqual((await wire.response()).status, 401)
        wire.request("GET", self.note)

        self.assertEqual((await wire.response()).status, 200)


class BodyBudgetTests(NotesTestCase):
    """All bodies together have a limit, and each address has a share of it."""

    bounds = RequestLimits(max_body=90_000, request_timeout=10.0, idle_timeout=20.0)
    all_bodies, share_of_bodies = 100_000, 60_000
    path = "/_matrix/client/v3/notes/a?access_token=alice"
    proxies = ("127.0.0.1",)

    async def begin(self, length: int, sent: int, address: str = "192.0.2.1") -> Wire:
        """A request that has not been sent completely."""
        wire = await self.connect()
        head = f"Content-Length: {length}\r\nX-Forwarded-For: {address}"
        wire.write(f"PUT {self.path} HTTP/1.1\r\n{head}\r\n\r\n".encode() + b" " * sent)
        return wire

    async def test_many_who_never_finish_do_not_fill_the_memory(self) -> None:
        """An attacker with 40 connections takes a share; others are served meanwhile."""
        attackers = [await self.begin(50_000, 49_000) for _ in range(3)]
        await self.until(lambda: self.taken() == 49_000)
        self.assertEqual((await attackers[1].response()).json["errcode"], "M_LIMIT_EXCEEDED")
        self.assertEqual((await attackers[2].response()).status, 429)

        other = await self.begin(50_000, 0, "192.0.2.2")
        other.write(b'{"text": "' + b"a" * 49_988 + b'"}')
        self.assertEqual((await other.response()).status, 200)
        self.assertEqual(self.taken(), 49_000)

        attackers[0].transport.abortConnection()
        await self.until(lambda: self.taken() == 0)

    async def test_a_body_of_unannounced_length_is_refused_beyond_the_limit(self) -> None:
        """A body of unannounced length counts as it arrives."""
        await self.begin(50_000, 49_000)
        await self.until(lambda: self.taken() == 49_000)
        wire = await self.connect()
        head = "Transfer-Encoding: chunked\r\nX-Forwarded-For: 192.0.2.1"
        wire.write(f"PUT {self.path} HTTP/1.1\r\n{head}\r\n\r\n".encode())
        for _ in range(3):
            wire.write(b"1388\r\n" + b" " * 5_000 + b"\r\n")

        response = await wire.response()
        self.assertEqual((response.status, response.json["errcode"]), (429, "M_LIMIT_EXCEEDED"))
        self.assertIn("retry-after", response.headers)
        self.assertEqual(self.taken(), 49_000)

    async def test_a_body_is_released_after_the_response(self) -> None:
        """A connection that stays open keeps no old body."""
        wire = await self.begin(50_000, 0)
        wire.write(b'{"text": "' + b"a" * 49_988 + b'"}')
        await wire.response()

        self.assertEqual(self.taken(), 0)
        [connection] = self.server.connections
        self.assertIsNone(connection.request)

    async def test_a_body_counts_until_its_handler_ends(self) -> None:
        """Even if the client has disconnected."""
        wire = await self.connect()
        wire.write(b"POST /write HTTP/1.1\r\nContent-Length: 9000\r\n\r\n" + b"x" * 9000)
        await self.until(lambda: self.notes.waiting)
        wire.transport.abortConnection()
        await self.until(lambda: not self.server.connections)
        self.assertEqual(self.taken(), 9000)

        self.notes.waiting.pop().callback(None)

        self.assertEqual(self.taken(), 0)

    def taken(self) -> int:
        return self.server._gate.bodies.taken


class BrokenRequestTests(NotesTestCase):
    async def assert_rejected(self, data: bytes) -> Wire:
        wire = await self.connect()
        wire.write(data)
        await wire.closed
        self.assertTrue(wire.received.startswith(b"HTTP/1.1 400 ") or not wire.received, data)
        return wire

    async def test_ambiguous_or_malformed_heads_are_rejected(self) -> None:
        """Requests that two programs read differently are used to smuggle others past a proxy."""
        length, chunked = b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"
        start = b"POST /upload HTTP/1.1\r\nHost: a\r\n"
        for data in (
            b"nonsense\r\n\r\n",
            start + length + chunked + b"\r\n0\r\n\r\n",
            start + length + length + b"\r\nhello",
            start + b"Content-Length: -5\r\n\r\n",
            start + b"no colon\r\n\r\n",
            start + chunked + b"\r\nzz\r\n",
            start + b"A: " + b"x" * 20_000 + b"\r\n\r\n",
        ):
            await self.assert_rejected(data)

    async def test_abandoned_request_leaves_nothing_behind(self) -> None:
        """An incomplete request is discarded."""
        for data in (b"", b"GET /ra", b"PUT /upload HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc"):
            wire = await self.connect()
            wire.write(data)
            await self.turn(0.01)
            wire.transport.loseConnection()
            await self.until(lambda: not self.server.connections)

        self.assertEqual(self.clock.getDelayedCalls(), [])
        statuses: list[Any] = [status for _, _, status in self.finished]
        self.assertEqual(statuses, [499])

"""Immediate writes: nothing is lost, duplicated or reordered, however slowly the peer reads."""

import msgspec

from homeserver.web.routes import Auth, Route
from tests.web.raw_http import ServerTestCase

LONG = b'"%s"' % (b"0123456789" * 300_000)


class WritingTests(ServerTestCase):
    async def long(self) -> msgspec.Raw:
        return msgspec.Raw(LONG)

    async def short(self) -> dict[str, int]:
        return {"short": 1}

    def setUp(self) -> None:
        self.serve(
            Route("GET", "/long", self.long, Auth.NONE),
            Route("GET", "/short", self.short, Auth.NONE),
        )

    async def test_responses_longer_than_a_buffer_arrive_complete_and_in_order(self) -> None:
        """A list of ten thousand members is read over a slow line, and then the next response."""
        wire = await self.connect()
        wire.transport.pauseProducing()

        for path in ("/short", "/long", "/long", "/short"):
            wire.request("GET", path)
        await self.until(lambda: len(self.finished) >= 2)
        wire.transport.resumeProducing()

        answers = [(await wire.response()).body for _ in range(4)]
        self.assertEqual(answers[0], b'{"short":1}')
        self.assertTrue(answers[1] == answers[2] == LONG)
        self.assertEqual(answers[3], answers[0])

    async def test_answer_is_written_before_the_connection_is_closed(self) -> None:
        """A client that requests the end of the connection gets the whole response first."""
        wire = await self.connect()

        wire.request("GET", "/long", headers=[("Connection", "close")])

        self.assertTrue((await wire.response()).body == LONG)
        await wire.closed

    async def test_disconnected_client_does_no_harm(self) -> None:
        """Data that can no longer be written are dropped with the connection."""
        wire = await self.connect()

        wire.request("GET", "/long")
        wire.transport.abortConnection()

        await self.until(lambda: not self.server.connections)
        self.assertEqual((await self.ask("GET", "/short")).body, b'{"short":1}')

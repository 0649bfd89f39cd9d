"""A TCP proxy in front of a server, which can fail as networks do.

It passes bytes on unread, so TLS works through it. The server's name has the proxy's port, so other
servers find only the proxy; clients of the test connect to the server directly.

It runs in a separate thread, so that servers can talk whatever the test is doing. Its methods are
for other threads, and have taken effect when they return.
"""

import asyncio
import contextlib
import threading
from collections.abc import Awaitable
from concurrent.futures import Future
from enum import Enum
from typing import Any

from tests.support.closing import ClosedOnExit

CHUNK = 65_536
ANSWER_SECONDS = 10.0
LINGER_SECONDS = 0.02


class Mode(Enum):
    """The treatment of connections."""

    PASS = "pass"
    REFUSE = "refuse"
    """Those that are open break, new ones are broken at once."""
    STALL = "stall"
    """All stay open, and no byte arrives."""


class Proxy(ClosedOnExit):
    """Listens on a free port and passes on to `target_port`, both of the loopback address."""

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self.mode = Mode.PASS
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._passing = asyncio.Event()
        self._passing.set()
        self._connections: set[asyncio.Task[Any]] = set()
        self._arrivals: list[Future[None]] = []
        self._server = self._do(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port: int = self._server.sockets[0].getsockname()[1]

    def set_mode(self, mode: Mode) -> None:
        """Fail in another way from now on, or no longer."""
        self._do(self._set_mode(mode))

    def next_bytes(self) -> "Future[None]":
        """Done when the next bytes were passed on to the server."""
        arrival: Future[None] = Future()
        self._loop.call_soon_threadsafe(self._expect, arrival)
        return arrival

    def close(self) -> None:
        """Break all connections and listen no more."""
        self.set_mode(Mode.REFUSE)
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(ANSWER_SECONDS)
        self._loop.close()

    def _do(self, work: Awaitable[Any]) -> Any:
        async def done() -> Any:
            return await work

        return asyncio.run_coroutine_threadsafe(done(), self._loop).result(ANSWER_SECONDS)

    async def _set_mode(self, mode: Mode) -> None:
        self.mode = mode
        if mode is Mode.PASS:
            self._passing.set()
        else:
            self._passing.clear()
        if mode is Mode.REFUSE:
            broken = [*self._connections]
            for connection in broken:
                connection.cancel()
            await asyncio.gather(*broken, return_exceptions=True)

    async def _close(self) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.current_task()
        assert connection is not None
        self._connections.add(connection)
        with contextlib.suppress(OSError, asyncio.CancelledError):
            if self.mode is not Mode.REFUSE:
                await self._pass_on(reader, writer)
        writer.transport.abort()
        self._connections.discard(connection)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self.target_port)
        ways = [
            asyncio.create_task(self._copy(reader, back, to_server=True)),
            asyncio.create_task(self._copy(there, writer, to_server=False)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            # Earlier bytes of the other side may still be on their way.
            await asyncio.wait(ways, timeout=LINGER_SECONDS)
        finally:
            for way in ways:
                way.cancel()
            back.transport.abort()

    async def _copy(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, to_server: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(CHUNK):
                await self._passing.wait()
                sink.write(data)
                await sink.drain()
                if to_server:
                    self._arrived()
            sink.write_eof()

    def _expect(self, arrival: "Future[None]") -> None:
        self._arrivals.append(arrival)

    def _arrived(self) -> None:
        arrivals, self._arrivals = self._arrivals, []
        for arrival in arrivals:
            arrival.set_result(None)

"""A stream of bytes from a connection to a slower reader, with back-pressure.

Files never exist as a whole in memory. When the reader is slower than the sender, the connection is
paused, so that no more than `MAX_BUFFERED` bytes and one read of the socket wait; more only if the
reader itself asks for more at a time. Small parts are joined: a body may be sent in chunks of one
byte, of which each would cost the memory of an object, and a call in each step of its way.
"""

from collections.abc import Callable

from twisted.internet.defer import Deferred

MAX_BUFFERED = 131_072  # bytes that wait for the reader before the connection is paused
SMALL = 4_096  # bytes; smaller parts are joined
JOINED = 65_536  # bytes of which a joined part has no more


class ByteStream:
    """The parts of a body in their order.

    `announced` is the size in bytes that the sender named, `None` if it is not known in advance.
    `pause` and `resume` control the connection.
    """

    def __init__(
        self, announced: int | None, pause: Callable[[], None], resume: Callable[[], None]
    ) -> None:
        self.announced = announced
        self.is_complete = False
        self._pause = pause
        self._resume = resume
        self._parts: list[bytes] = []
        self._joined = bytearray()  # small parts that came after the last one of `_parts`
        self._buffered = 0
        self._wanted = 1
        self._is_paused = False
        self._error: Exception | None = None
        self._waiting: Deferred[None] | None = None

    async def read(self, at_least: int = 1) -> list[bytes]:
        """The parts that have arrived since the last call; none at the end.

        Unless the body ends before, they have `at_least` so many bytes together: a reader for which
        each call is expensive asks for many. Raises the error with which `fail` was called.
        """
        self._wanted = at_least
        if self._buffered < at_least and not self.is_complete and self._error is None:
            self._continue()
            self._waiting = Deferred()
            try:
                await self._waiting
            finally:
                self._waiting = None
        if self._error is not None:
            raise self._error
        self._end_joined()
        parts, self._parts, self._buffered = self._parts, [], 0
        self._continue()
        return parts

    def feed(self, data: bytes) -> None:
        """The next part has arrived."""
        if self._error is not None:
            return
        if len(data) >= SMALL or len(self._joined) + len(data) > JOINED:
            self._end_joined()
        if len(data) >= SMALL:
            self._parts.append(data)
        else:
            self._joined += data
        self._buffered += len(data)
        if self._buffered >= max(MAX_BUFFERED, self._wanted) and not self._is_paused:
            self._is_paused = True
            self._pause()
        if self._buffered >= self._wanted:
            self._wake()

    def end(self) -> None:
        """The body is complete."""
        self.is_complete = True
        self._wake()

    def fail(self, error: Exception) -> None:
        """The rest of the body will not be passed on; a complete body stays as it is."""
        if self.is_complete or self._error is not None:
            return
        self._error = error
        self._parts.clear()
        self._joined.clear()
        self._buffered = 0
        self._continue()
        self._wake()

    def _end_joined(self) -> None:
        if self._joined:
            self._parts.append(bytes(self._joined))
            self._joined.clear()

    def _continue(self) -> None:
        if self._is_paused:
            self._is_paused = False
            self._resume()

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.called:
            self._waiting.callback(None)

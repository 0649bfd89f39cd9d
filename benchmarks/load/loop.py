"""A load generator that costs little: keep-alive HTTP connections on one epoll loop.

A client is a script: a generator that yields the bytes of a request and is resumed with the
response. Sockets block: a request is small, and a connection is read only when it has data. The
responses must have a `Content-Length`, as those of this server and of the trivial page do.
"""

import select
import socket
import time
from collections.abc import Callable, Generator, Sequence

Response = tuple[int, bytes]  # HTTP status and body
Script = Generator[bytes, Response, None]
RECEIVE_BYTES = 262_144


class LoadFailed(Exception):
    """A request was refused or a connection lost, so that a figure would mean nothing."""


class Loop:
    """Waits for many sockets at once and calls the function that each was added with."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._readers: dict[int, Callable[[], None]] = {}

    def add(self, connection: socket.socket, readable: Callable[[], None]) -> None:
        """Call `readable` whenever the socket has data."""
        self._readers[connection.fileno()] = readable
        self._epoll.register(connection.fileno(), select.EPOLLIN)

    def remove(self, connection: socket.socket) -> None:
        """Forget a socket, which must still be open."""
        del self._readers[connection.fileno()]
        self._epoll.unregister(connection.fileno())

    def run(self, done: Callable[[], bool], seconds: float) -> bool:
        """Serve the sockets until `done()` or for so many seconds; returns whether it was done."""
        deadline = time.perf_counter() + seconds
        while not done():
            left = deadline - time.perf_counter()
            if left <= 0:
                return False
            for descriptor, _ in self._epoll.poll(left):
                # A function called before in this iteration may have closed the connection.
                readable = self._readers.get(descriptor)
                if readable is not None:
                    readable()
        return True

    def run_for(self, seconds: float) -> None:
        """Serve the sockets for so many seconds."""
        self.run(lambda: False, seconds)


class HttpConnection:
    """One keep-alive connection that runs one script at a time."""

    def __init__(self, loop: Loop, port: int) -> None:
        self._loop = loop
        self._socket = connect(port)
        self._script: Script | None = None
        self._received = bytearray()
        self._response_span: tuple[int, int] | None = None  # of the body, once its head is there
        loop.add(self._socket, self._readable)

    @property
    def busy(self) -> bool:
        """Whether a script is running."""
        return self._script is not None

    def run(self, script: Script) -> None:
        """Start a script: its first request is sent at once."""
        self._script = script
        self._socket.sendall(next(script))

    def close(self) -> None:
        """Close the connection, even while its script waits for a response."""
        self._loop.remove(self._socket)
        self._socket.close()
        self._script = None

    def _readable(self) -> None:
        data = self._socket.recv(RECEIVE_BYTES)
        if not data or self._script is None:
            raise LoadFailed(f"the server closed a connection: {bytes(self._received[:200])!r}")
        self._received += data
        response = self._take_response()
        if response is None:
            return
        try:
            self._socket.sendall(self._script.send(response))
        except StopIteration:
            self._script = None

    def _take_response(self) -> Response | None:
        received = self._received
        if self._response_span is None:
            head_end = received.find(b"\r\n\r\n") + 4
            if head_end < 4:
                return None
            self._response_span = head_end, head_end + content_length(bytes(received[:head_end]))
        start, end = self._response_span
        if len(received) < end:
            return None
        response = int(received[9:12]), bytes(received[start:end])
        del received[:end]
        self._response_span = None
        return response


def content_length(head: bytes) -> int:
    """Length of the body that an HTTP head announces."""
    lowered = head.lower()
    start = lowered.find(b"content-length:")
    if start < 0:
        raise LoadFailed(f"a response without Content-Length: {head!r}")
    return int(lowered[start + 15 : lowered.find(b"\r\n", start)])


def connect(port: int) -> socket.socket:
    """A connection to the loopback address that sends small writes at once."""
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def request(method: str, path: str, token: str | None = None, body: bytes = b"") -> bytes:
    """The bytes of an HTTP request."""
    authorization = f"Authorization: Bearer {token}\r\n" if token else ""
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{authorization}"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def fetch_all(loop: Loop, port: int, requests: Sequence[bytes], connections: int) -> list[bytes]:
    """The bodies of many responses, in the order of the requests; all must succeed."""
    bodies = [b""] * len(requests)

    def script(first: int) -> Script:
        for number in range(first, len(requests), connections):
            status, body = yield requests[number]
            if status != 200:
                raise LoadFailed(f"{requests[number][:300]!r}: {status} {body[:300]!r}")
            bodies[number] = body

    open_connections = [HttpConnection(loop, port) for _ in range(min(connections, len(requests)))]
    for first, connection in enumerate(open_connections):
        connection.run(script(first))
    finished = loop.run(lambda: not any(one.busy for one in open_connections), 600)
    for connection in open_connections:
        connection.close()
    if not finished:
        raise LoadFailed("the set-up took more than ten minutes")
    return bodies

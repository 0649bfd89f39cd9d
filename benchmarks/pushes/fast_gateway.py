"""A push gateway that does nothing but count: `python -m benchmarks.pushes.fast_gateway PORT`.

It accepts every notification at once, and responds to GET with their number.
"""

import selectors
import socket
import sys

from benchmarks.loop import content_length

ACCEPTED = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


class Gateway:
    """Accepts connections and requests on one port."""

    def __init__(self, port: int) -> None:
        self.accepted = 0
        self._selector = selectors.DefaultSelector()
        self._buffers: dict[socket.socket, bytearray] = {}
        self._listener = socket.create_server(("127.0.0.1", port), backlog=1_000)
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)

    def serve(self) -> None:
        """Respond until killed."""
        while True:
            for key, _ in self._selector.select():
                found = key.fileobj
                if found is self._listener:
                    connection, _ = self._listener.accept()
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    self._buffers[connection] = bytearray()
                    self._selector.register(connection, selectors.EVENT_READ)
                elif isinstance(found, socket.socket):
                    self._read(found)

    def _read(self, connection: socket.socket) -> None:
        try:
            data = connection.recv(65_536)
        except ConnectionError:
            data = b""
        if not data:
            self._selector.unregister(connection)
            del self._buffers[connection]
            connection.close()
            return
        buffer = self._buffers[connection]
        buffer += data
        while True:
            end = buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(buffer[:end])
            if head.startswith(b"GET"):
                body = b"%d" % self.accepted
                head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body)
                connection.sendall(head + body)
                del buffer[: end + 4]
                continue
            length = content_length(head)
            if len(buffer) < end + 4 + length:
                return
            del buffer[: end + 4 + length]
            self.accepted += 1
            connection.sendall(ACCEPTED)


if __name__ == "__main__":
    Gateway(int(sys.argv[1])).serve()

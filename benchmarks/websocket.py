"""A minimal WebSocket client that can count what arrives: RFC 6455 without extensions.

Updates come as whole text frames. The client responds to pings; every other kind of frame ends
the run, since a figure after it would mean nothing.

Spec: https://www.rfc-editor.org/rfc/rfc6455#section-5.2
"""

import struct
from collections.abc import Callable

from benchmarks.load.loop import RECEIVE_BYTES, LoadFailed, Loop, connect

PATH = "/_matrix/client/v3/stream"
TEXT, CLOSE, PING, PONG = 1, 8, 9, 10


class WebSocket:
    """One open socket; `on_text` gets each text frame's payload, from `since` on."""

    def __init__(
        self,
        loop: Loop,
        port: int,
        token: str,
        on_text: Callable[[bytes], None],
        since: str = "",
    ) -> None:
        self._loop = loop
        self._on_text = on_text
        self._socket = connect(port)
        self._received = b""
        self._shake_hands(token, since)
        loop.add(self._socket, self._readable)
        # The first update may have come in one piece with the response to the WebSocket handshake.
        self._take_frames()

    def close(self) -> None:
        """Drop the connection."""
        self._loop.remove(self._socket)
        self._socket.close()

    def _shake_hands(self, token: str, since: str) -> None:
        path = f"{PATH}?since={since}" if since else PATH
        self._socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nAuthorization: Bearer {token}\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Protocol: m.json\r\n\r\n".encode()
        )
        while b"\r\n\r\n" not in self._received:
            data = self._socket.recv(RECEIVE_BYTES)
            if not data:
                raise LoadFailed(f"no WebSocket: {self._received[:300]!r}")
            self._received += data
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 101"):
            raise LoadFailed(f"no WebSocket: {head[:300]!r}")

    def _readable(self) -> None:
        data = self._socket.recv(RECEIVE_BYTES)
        if not data:
            raise LoadFailed("the server closed a WebSocket")
        self._received += data
        self._take_frames()

    def _take_frames(self) -> None:
        while (frame := take_frame(self._received)) is not None:
            opcode, payload, self._received = frame
            if opcode == TEXT:
                self._on_text(payload)
            elif opcode == PING:
                # The mask of a client's frame may be all zeros, which leaves the payload as it is.
                self._socket.sendall(bytes([0x80 | PONG, 0x80 | len(payload)]) + bytes(4) + payload)
            else:
                raise LoadFailed(f"a WebSocket frame of kind {opcode}: {payload[:200]!r}")


def take_frame(received: bytes) -> tuple[int, bytes, bytes] | None:
    """The first frame's kind and payload, and the bytes after it; None while it is incomplete."""
    if len(received) < 2:
        return None
    length, start = received[1] & 0x7F, 2
    if length == 126:
        if len(received) < 4:
            return None
        length, start = struct.unpack_from("!H", received, 2)[0], 4
    elif length == 127:
        if len(received) < 10:
            return None
        length, start = struct.unpack_from("!Q", received, 2)[0], 10
    if len(received) < start + length:
        return None
    if not received[0] & 0x80:
        raise LoadFailed("a fragmented WebSocket message")
    return received[0] & 0x0F, received[start : start + length], received[start + length :]

"""The parser of one HTTP/1.1 response, fed as its bytes come. Head and body are bounded.

Spec: https://www.rfc-editor.org/rfc/rfc9112.html#name-message-body-length
"""

import re

from homeserver.outbound.http_client import OutboundError

MAX_HEAD = 16_384  # bytes of the head, and of the chunk sizes and trailers

_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: [^\r\n]*)?")
_CHUNK = re.compile(rb"([0-9a-fA-F]{1,8})[ \t]*(?:;[^\r\n]*)?")
_LENGTH = re.compile(rb"[0-9]{1,15}")
_NO_BODY = (204, 304)


class ResponseParser:
    """Reads one response. `feed` raises `OutboundError` for what is none, or too large."""

    def __init__(self, max_body: int) -> None:
        self.status = 0
        self.body = bytearray()
        self.is_begun = False
        self.may_reuse = False
        self._max_body = max_body
        self._buffer = bytearray()
        self._head_bytes = 0
        self._left: int | None = None  # bytes of the body, or of the chunk
        self._is_chunked = False
        self._is_in_trailer = False
        self._has_head = False

    @property
    def ends_with_connection(self) -> bool:
        """Whether the end of the connection ends the response."""
        return self._has_head and not self._is_chunked and self._left is None

    def feed(self, data: bytes) -> bool:
        """Read more; whether the response is complete."""
        self.is_begun = True
        self._buffer += data
        if not self._has_head and not self._read_head():
            return False
        if self._is_chunked:
            return self._read_chunks()
        return self._read_body()

    def _read_head(self) -> bool:
        while True:
            end = self._buffer.find(b"\r\n\r\n")
            self._count_head(end + 4 if end >= 0 else 0, len(self._buffer) if end < 0 else 0)
            if end < 0:
                return False
            lines = bytes(self._buffer[:end]).split(b"\r\n")
            del self._buffer[: end + 4]
            matched = _STATUS.fullmatch(lines[0])
            if matched is None:
                raise OutboundError("the response is not HTTP/1.1")
            self.status = int(matched[2])
            if self.status == 101:
                raise OutboundError("the response switches the protocol")
            if self.status >= 200:
                break
        headers: dict[bytes, bytes] = {}
        for line in lines[1:]:
            name, colon, value = line.partition(b":")
            if not colon:
                raise OutboundError("a header of the response is not valid")
            name, value = name.lower(), value.strip(b" \t")
            if name == b"content-length" and headers.get(name, value) != value:
                raise OutboundError("the response has two lengths")
            headers[name] = value
        self._take_headers(headers, is_new=matched[1] == b"1")
        return True

    def _count_head(self, complete: int, waiting: int) -> None:
        self._head_bytes += complete
        if self._head_bytes + waiting > MAX_HEAD:
            raise OutboundError("the head of the response is too large")

    def _take_headers(self, headers: dict[bytes, bytes], *, is_new: bool) -> None:
        self._has_head = True
        connection = headers.get(b"connection", b"").lower()
        self.may_reuse = is_new and b"close" not in connection
        if self.status in _NO_BODY:
            self._left = 0
        elif b"transfer-encoding" in headers:
            if headers[b"transfer-encoding"].lower() != b"chunked":
                raise OutboundError("the transfer encoding of the response is unknown")
            self._is_chunked = True
        elif b"content-length" in headers:
            if not _LENGTH.fullmatch(headers[b"content-length"]):
                raise OutboundError("the length of the response is not valid")
            self._left = int(headers[b"content-length"])
            if self._left > self._max_body:
                raise OutboundError("the response is too large")
        else:
            self.may_reuse = False

    def _read_body(self) -> bool:
        left = len(self._buffer) if self._left is None else self._left
        part = self._buffer[:left]
        del self._buffer[:left]
        self._add(part)
        if self._left is None:
            return False
        self._left -= len(part)
        if self._left:
            return False
        if self._buffer:
            self.may_reuse = False  # more than was asked for
        return True

    def _read_chunks(self) -> bool:
        while True:
            if self._left is not None:
                # The chunk, and the line end after it.
                part = self._buffer[: self._left]
                del self._buffer[: self._left]
                self._left -= len(part)
                self._add(part)
                if self._left or len(self._buffer) < 2:
                    return False
                if self._buffer[:2] != b"\r\n":
                    raise OutboundError("a chunk of the response is not valid")
                del self._buffer[:2]
                self._left = None
            end = self._buffer.find(b"\r\n")
            self._count_head(end + 2 if end >= 0 else 0, len(self._buffer) if end < 0 else 0)
            if end < 0:
                return False
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 2]
            if self._is_in_trailer:
                if not line:
                    self.may_reuse = self.may_reuse and not self._buffer
                    return True
                continue
            matched = _CHUNK.fullmatch(line)
            if matched is None:
                raise OutboundError("a chunk of the response is not valid")
            size = int(matched[1], 16)
            if size:
                self._left = size
            else:
                self._is_in_trailer = True

    def _add(self, part: bytearray) -> None:
        self.body += part
        if len(self.body) > self._max_body:
            raise OutboundError("the response is too large")

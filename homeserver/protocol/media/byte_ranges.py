"""Byte ranges: the part of a file that a `Range` header requests (RFC 9110, section 14).

Only one range is served. A header with several, or one that is malformed, is ignored, as the RFC
allows: a response that repeats a file many times would be cheap to request.
"""

import re

import msgspec

from homeserver.protocol.errors import MatrixError

_RANGE = re.compile(r"bytes[ \t]*=[ \t]*(\d{0,19})-(\d{0,19})[ \t]*", re.IGNORECASE | re.ASCII)


class ByteRange(msgspec.Struct, frozen=True):
    """The bytes from `start` up to, and without, `end` of a file of `size` bytes."""

    start: int
    end: int
    size: int

    @property
    def content_range(self) -> str:
        """The value of the header `Content-Range`."""
        return f"bytes {self.start}-{self.end - 1}/{self.size}"


class RangeNotSatisfiable(MatrixError):
    """The file has no byte of the requested range."""

    errcode, status = "M_UNKNOWN", 416

    def __init__(self, size: int) -> None:
        super().__init__("The media has no such range of bytes")
        self._size = size

    def headers(self) -> dict[str, str]:
        return {"Content-Range": f"bytes */{self._size}"}


def parse_range(header: str | None, size: int) -> ByteRange | None:
    """The range that a header requests, `None` for the whole file.

    Raises `RangeNotSatisfiable`.
    """
    found = None if header is None or len(header) > 100 else _RANGE.fullmatch(header.strip())
    if found is None or found[1] == found[2] == "":
        return None
    if found[1] == "":
        length = int(found[2])
        if length == 0 or size == 0:
            raise RangeNotSatisfiable(size)
        return ByteRange(max(0, size - length), size, size)
    start = int(found[1])
    if found[2] and int(found[2]) < start:
        return None
    if start >= size:
        raise RangeNotSatisfiable(size)
    end = min(int(found[2]) + 1, size) if found[2] else size
    return ByteRange(start, end, size)

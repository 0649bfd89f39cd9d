"""`multipart/mixed`, as servers send media to each other: first JSON, then the file.

The reader gets bytes in pieces as they arrive, and passes those of the file on without keeping more
than a delimiter's length. Everything before them is bounded: another server may send anything.

Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1mediadownloadmediaid
"""

import re
from collections.abc import Iterator, Mapping
from enum import Enum, auto

MAX_PREAMBLE = 8_192  # bytes
MAX_HEAD = 16_384  # bytes of the headers of one part
MAX_PARTS = 2
_BOUNDARY = re.compile(
    r"multipart/mixed[ \t]*;(?:.*;)?[ \t]*"
    r"boundary=(?:\"([^\"]{1,70})\"|([^\s;\"]{1,70})(?=[\s;]|$))",
    re.IGNORECASE | re.DOTALL,
)

Head = Mapping[str, str]  # the headers of a part; their names are in lower case


class MultipartError(ValueError):
    """The body is not one of two parts."""


def boundary_in(content_type: str) -> str:
    """The boundary in a `Content-Type`. Raises `MultipartError`."""
    found = None if len(content_type) > 1_000 else _BOUNDARY.match(content_type.strip())
    boundary = "" if found is None else found[1] or found[2]
    if not boundary or not boundary.isascii() or not boundary.isprintable():
        raise MultipartError("the response is not multipart/mixed with a boundary")
    return boundary.rstrip(" ")


def before_file(boundary: str, headers: Mapping[str, str]) -> bytes:
    """What precedes the bytes of a file; `headers` are those of its part."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return (
        f"--{boundary}\r\nContent-Type: application/json\r\n\r\n{{}}\r\n--{boundary}\r\n{lines}\r\n"
    ).encode("ascii")


def after_file(boundary: str) -> bytes:
    """What follows the bytes of a file."""
    return f"\r\n--{boundary}--\r\n".encode("ascii")


class _State(Enum):
    PREAMBLE = auto()
    DELIMITER = auto()
    HEAD = auto()
    BODY = auto()
    END = auto()


class MultipartReader:
    """A reader of one body."""

    def __init__(self, boundary: str) -> None:
        self._delimiter = f"\r\n--{boundary}".encode("ascii")
        # The first delimiter need not follow a line.
        self._buffer = b"\r\n"
        self._state = _State.PREAMBLE
        self._parts = 0
        self._skipped = 0  # bytes at the start of the buffer that do not belong to the body

    def feed(self, data: bytes) -> Iterator[Head | bytes]:
        """The headers of each part that begins in `data`, and the bytes of its body.

        Raises `MultipartError`.
        """
        self._buffer += data
        while True:
            state, size = self._state, len(self._buffer)
            yield from self._step()
            if self._state is state and len(self._buffer) == size:
                return

    def check_complete(self) -> None:
        """Raise `MultipartError` if the body ended before its last delimiter."""
        if self._state is not _State.END:
            raise MultipartError("the body ends too early")

    def _step(self) -> Iterator[Head | bytes]:
        if self._state is _State.PREAMBLE:
            self._skip_preamble()
        elif self._state is _State.DELIMITER:
            self._read_delimiter()
        elif self._state is _State.HEAD:
            yield from self._read_head()
        elif self._state is _State.BODY:
            yield from self._read_body()
        else:
            self._buffer = b""  # the epilogue

    def _skip_preamble(self) -> None:
        place = self._buffer.find(self._delimiter)
        if place > MAX_PREAMBLE or (place < 0 and len(self._buffer) > MAX_PREAMBLE):
            raise MultipartError("there is no part")
        if place >= 0:
            self._begin_delimiter(place)

    def _begin_delimiter(self, place: int) -> None:
        self._buffer = self._buffer[place + len(self._delimiter) :]
        self._state = _State.DELIMITER

    def _read_delimiter(self) -> None:
        if self._buffer.startswith(b"--"):
            if self._parts < MAX_PARTS:
                raise MultipartError("there is no file")
            self._state = _State.END
            return
        line = self._buffer.lstrip(b" \t")
        if line.startswith(b"\r\n"):
            if self._parts == MAX_PARTS:
                raise MultipartError("there are more than two parts")
            self._parts += 1
            # With the line break before them, headers end in two of them even if there are none.
            self._buffer = line
            self._state = _State.HEAD
        elif len(self._buffer) > MAX_HEAD or line not in (b"", b"\r", b"-"):
            raise MultipartError("a delimiter is malformed")

    def _read_head(self) -> Iterator[Head]:
        end = self._buffer.find(b"\r\n\r\n")
        if end > MAX_HEAD or (end < 0 and len(self._buffer) > MAX_HEAD):
            raise MultipartError("the headers of a part are too long")
        if end < 0:
            return
        head = _headers_in(self._buffer[:end])
        # A delimiter may follow at once: its line break is the one that ends the headers.
        self._buffer = self._buffer[end + 2 :]
        self._skipped = 2
        self._state = _State.BODY
        yield head

    def _read_body(self) -> Iterator[bytes]:
        place = self._buffer.find(self._delimiter)
        end = place if place >= 0 else max(0, len(self._buffer) - len(self._delimiter) + 1)
        body = self._buffer[self._skipped : end]
        if place >= 0:
            self._begin_delimiter(place)
        else:
            self._buffer = self._buffer[end:]
            self._skipped = max(0, self._skipped - end)
        if body:
            yield body


def _headers_in(block: bytes) -> Head:
    headers: dict[str, str] = {}
    for line in block.split(b"\r\n"):
        name, colon, value = line.decode("latin-1").partition(":")
        if line and (not colon or not name.strip()):
            raise MultipartError("a header of a part is malformed")
        if line:
            headers.setdefault(name.strip().lower(), value.strip(" \t"))
    return headers

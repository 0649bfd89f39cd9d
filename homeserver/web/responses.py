"""Responses: a handler's result, or error, as the head and body of an HTTP response.

Every response has a length, a date, and the headers with which web clients of any origin may use
the API. JSON is never cached: it depends on the
token, and most of it on the time.

Spec: https://spec.matrix.org/v1.19/client-server-api/#api-standards
Spec: https://spec.matrix.org/v1.19/client-server-api/#web-browser-clients
"""

from collections.abc import Mapping, Sequence
from enum import Enum
from http import HTTPStatus

import msgspec
from twisted.web.http import datetimeToString

from homeserver.protocol.errors import MatrixError
from homeserver.web.routes import Response

CORS_HEADERS = (
    b"Access-Control-Allow-Origin: *\r\n"
    b"Access-Control-Allow-Methods: GET, POST, PUT, DELETE, OPTIONS\r\n"
    b"Access-Control-Allow-Headers: X-Requested-With, Content-Type, Authorization\r\n"
    b"X-Content-Type-Options: nosniff\r\n"
)
"""Header lines of every response, for cross-origin resource sharing."""

_PREFLIGHT = {"Access-Control-Max-Age": "86400"}


class BodyEnd(Enum):
    """How a client finds the end of a body whose length is not known in advance."""

    CHUNKS = b"Transfer-Encoding: chunked\r\n\r\n"
    CLOSE = b"\r\n"  # by the end of the connection, as in HTTP/1.0


_DEFAULTS = {"content-type": "application/json", "cache-control": "no-store"}
NO_HEADERS: Mapping[str, str] = {}
_ENCODER = msgspec.json.Encoder()


def preflight(request_headers: Sequence[str] = ()) -> Response:
    """The response to OPTIONS, for all paths: browsers may cache it for a day.

    `request_headers` are those that the route allows besides the usual ones.
    """
    if not request_headers:
        return Response(204, b"", _PREFLIGHT)
    # Browsers join this line and that of all responses to one list.
    more = {"Access-Control-Allow-Headers": ", ".join(request_headers)}
    return Response(204, b"", _PREFLIGHT | more)


def error_response(error: MatrixError) -> Response:
    """The standard error response."""
    return Response(error.status, error.body(), error.headers())


def encode_body(body: object) -> bytes:
    """The bytes of a body. Raises `TypeError` for values that are not JSON, a defect."""
    if isinstance(body, bytes):
        return body
    if isinstance(body, msgspec.Raw):
        return bytes(body)
    return _ENCODER.encode({} if body is None else body)


class ResponseHeads:
    """A builder of response heads; the parts that stay the same for a second are cached."""

    def __init__(self) -> None:
        self._second = -1
        self._starts: dict[tuple[int, bool], bytes] = {}

    def head(
        self,
        status: int,
        length: int | BodyEnd,
        headers: Mapping[str, str] = NO_HEADERS,
        *,
        now: float,
        close: bool,
    ) -> bytes:
        """Status line and headers, up to and with the empty line.

        `now` is wall time in seconds; `close` announces that the connection ends with this
        response. Raises `ValueError` for a header with a line break, which would smuggle in another
        one.
        """
        second = int(now)
        if second != self._second:
            self._second = second
            self._starts.clear()
        start = self._starts.get((status, close))
        if start is None:
            start = self._starts[status, close] = _start(status, close, second)
        if headers:
            start += _header_lines({**_DEFAULTS, **{k.lower(): v for k, v in headers.items()}})
        else:
            start += _JSON_HEADERS
        if status in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED):
            return start + b"\r\n"
        if isinstance(length, BodyEnd):
            return start + length.value
        return b"%sContent-Length: %d\r\n\r\n" % (start, length)


def _start(status: int, close: bool, second: int) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Unknown"
    line = f"HTTP/1.1 {status} {phrase}\r\n".encode()
    date: bytes = datetimeToString(second)
    return (
        line
        + b"Date: "
        + date
        + b"\r\n"
        + CORS_HEADERS
        + (b"Connection: close\r\n" if close else b"")
    )


def _header_lines(headers: Mapping[str, str]) -> bytes:
    lines = ""
    for name, value in headers.items():
        if "\r" in value or "\n" in value:
            raise ValueError(f"the value of the header {name} has a line break")
        lines += f"{name.title()}: {value}\r\n"
    return lines.encode("ascii")


_JSON_HEADERS = _header_lines(_DEFAULTS)

"""The head of a request: its request line and header fields, from bytes to values.

Strict wherever RFC 9112 leaves a choice, since a proxy that reads a head differently from this
server lets one client send requests in the name of another. Refused are line breaks other than
CRLF, fields that continue on a second line, more than one `Content-Length`, any `Transfer-Encoding`
but `chunked`, and both of them together.

A client sends the same fields with each request of a connection, so they are parsed only where
their bytes have changed.

Spec: https://www.rfc-editor.org/rfc/rfc9112#section-5
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from homeserver.web.authentication import find_token

MAX_HEAD = 16_384  # bytes
MAX_FIELDS = 500
MAX_KEPT = 2_048  # bytes of the fields that a connection keeps for the next request
MAX_LENGTH_DIGITS = 18

HEAD_END = b"\r\n\r\n"
_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_REQUEST_LINE = re.compile(rb"(%s) ([\x21-\xb0]+) HTTP/1\.([01])" % _TOKEN)
_NAME = re.compile(_TOKEN)
# The usual names as they are usually written: to find one is faster than to check it.
_COMMON = """
    Accept Accept-Encoding Accept-Language Authorization Cache-Control Connection Content-Length
    Content-Type Cookie Expect Forwarded Host Keep-Alive Origin Pragma Range Referer
    Sec-Fetch-Dest Sec-Fetch-Mode Sec-Fetch-Site Sec-WebSocket-Extensions Sec-WebSocket-Key
    Sec-WebSocket-Protocol Sec-WebSocket-Version Transfer-Encoding Upgrade User-Agent Via
    X-Forwarded-For X-Forwarded-Host X-Forwarded-Proto X-Real-IP
"""
_LOWERED = {
    written.encode(): name.lower().encode()
    for name in _COMMON.split()
    for written in (name, name.lower())
}


class MalformedRequest(Exception):
    """Bytes that are not a request, or one that two servers could read in two ways."""


class HeaderFields:
    """The header fields of a request. Names are given in lower case.

    `length` is the number of bytes of the body, `None` if it comes in chunks. `closes` says that
    the client wants no more requests on the connection, `awaits_continue` that it sends the body
    only when it is asked to.
    """

    __slots__ = ("_bearer", "_values", "awaits_continue", "closes", "length")

    def __init__(self, values: dict[bytes, tuple[bytes, ...]]) -> None:
        self._values = values
        self._bearer: str | None = None
        self.length = _body_length(values)
        self.closes = b"connection" in values and b"close" in _entries(values[b"connection"])
        self.awaits_continue = values.get(b"expect", (b"",))[0].lower() == b"100-continue"

    def values(self, name: bytes) -> Sequence[bytes]:
        """The values of all fields of a name, in their order."""
        return self._values.get(name, ())

    def items(self) -> list[tuple[bytes, Sequence[bytes]]]:
        """All names, in lower case, with their values."""
        return [*self._values.items()]

    def token(self, query: bytes) -> str | None:
        """The access token of a request with these fields and a query string.

        Raises `MissingToken` if it is malformed.
        """
        bearer = self._bearer
        if bearer is not None and b"access_token" not in query:
            return bearer
        values = self._values
        token = find_token(
            values.get(b"authorization"), query, values.get(b"sec-websocket-protocol")
        )
        if b"access_token" not in query:
            self._bearer = token
        return token


class RequestHead(NamedTuple):
    """A request line with the header fields below it; `target` is as the client wrote it."""

    method: bytes
    target: bytes
    is_http_1_0: bool
    fields: HeaderFields


class HeadReader:
    """Parses the heads of one connection's requests."""

    __slots__ = ("_block", "_fields")

    def __init__(self) -> None:
        self._block: bytes | None = None
        self._fields = HeaderFields({})

    def read(self, head: bytes) -> RequestHead:
        """Parse a head, without the empty line at its end. Raises `MalformedRequest`."""
        line, _, block = head.partition(b"\r\n")
        if not line:
            # Some clients end a body with a line break that is not part of it (RFC 9112, 2.2).
            line, _, block = block.partition(b"\r\n")
        match = _REQUEST_LINE.fullmatch(line)
        if match is None:
            raise MalformedRequest("not a request line of HTTP/1.1")
        if block != self._block:
            self._block = None
            self._fields = parse_fields(block)
            if len(block) <= MAX_KEPT:
                self._block = block
        method, target, minor = match.groups()
        return RequestHead(method, target, minor == b"0", self._fields)


def parse_fields(block: bytes) -> HeaderFields:
    """The header fields of a block of lines. Raises `MalformedRequest`."""
    values: dict[bytes, tuple[bytes, ...]] = {}
    if not block:
        return HeaderFields(values)
    lines = block.split(b"\r\n")
    if len(lines) > MAX_FIELDS:
        raise MalformedRequest("too many header fields")
    # The line breaks between the fields are the only ones, and there is no NUL (RFC 9110, 5.5).
    if len(block) - len(block.translate(None, b"\0\r\n")) != 2 * (len(lines) - 1):
        raise MalformedRequest("a header field has a line break or a NUL")
    for line in lines:
        written, colon, value = line.partition(b":")
        name = _LOWERED.get(written)
        if name is None:
            if _NAME.fullmatch(written) is None:
                raise MalformedRequest("a header field has no name")
            name = written.lower()
        if not colon:
            raise MalformedRequest("a header field has no value")
        value = value.strip(b" \t")
        values[name] = (*values[name], value) if name in values else (value,)
    return HeaderFields(values)


def _body_length(values: dict[bytes, tuple[bytes, ...]]) -> int | None:
    lengths, codings = values.get(b"content-length"), values.get(b"transfer-encoding")
    if codings is not None:
        if lengths is not None or [coding.lower() for coding in codings] != [b"chunked"]:
            raise MalformedRequest("the end of the body is not clear")
        return None
    if lengths is None:
        return 0
    if len(lengths) > 1 or not lengths[0].isdigit() or len(lengths[0]) > MAX_LENGTH_DIGITS:
        raise MalformedRequest("the length of the body is not clear")
    return int(lengths[0])


def _entries(values: Sequence[bytes]) -> list[bytes]:
    return [entry.strip() for entry in b",".join(values).lower().split(b",")]

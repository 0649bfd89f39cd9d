"""Paths and query strings: percent-decoding to text that the rest of the server can store.

A path is split at its slashes before it is decoded, so that `a%2Fb` is one segment `a/b`: room
aliases, event types and state keys may contain slashes. Segments that do not decode to UTF-8
without NUL are refused, since identifiers are UTF-8 and PostgreSQL cannot store NUL.

Spec: https://spec.matrix.org/v1.19/appendices/#conventions-for-matrix-apis
"""

from functools import lru_cache
from urllib.parse import unquote_to_bytes

from homeserver.protocol.errors import InvalidParam

MAX_REMEMBERED = 1_000  # paths without their last segments
MAX_REMEMBERED_BYTES = 256


def split_path(path: bytes) -> list[str]:
    """The decoded segments of a raw path, without the empty one before its first slash.

    Raises `InvalidParam` if a segment is not UTF-8 or contains NUL.
    """
    # Often only the last one is new: a transaction id, for one.
    before, slash, last = path.rpartition(b"/")
    if len(before) > MAX_REMEMBERED_BYTES:
        return _segments(path)[1:]
    segments = [*_remembered_segments(before), *_segments(last)]
    return segments[1:] if slash else []


def _segments(path: bytes) -> list[str]:
    if b"%" in path:
        return [_text(unquote_to_bytes(segment)) for segment in path.split(b"/")]
    return _text(path).split("/")


@lru_cache(maxsize=MAX_REMEMBERED)
def _remembered_segments(path: bytes) -> list[str]:
    """As `_segments`. Not to be changed."""
    return _segments(path)


def parse_query(query: bytes) -> dict[str, list[str]]:
    """The values of each parameter, in order; a parameter without `=` has the value "".

    Raises `InvalidParam` if a name or a value is not UTF-8 or contains NUL.
    """
    values: dict[str, list[str]] = {}
    for pair in query.split(b"&"):
        if pair:
            name, _, value = pair.partition(b"=")
            values.setdefault(_form_text(name), []).append(_form_text(value))
    return values


def _form_text(raw: bytes) -> str:
    # Browsers and most HTTP libraries write a space in a query as a plus sign.
    if b"+" in raw:
        raw = raw.replace(b"+", b" ")
    return _text(unquote_to_bytes(raw) if b"%" in raw else raw)


def _text(raw: bytes) -> str:
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise InvalidParam("The path and the query must be UTF-8") from None
    if "\0" in text:
        raise InvalidParam("The path and the query may not contain NUL characters")
    return text

"""Paths and query strings: percent-decoding to text that the rest of the server can store.

A path is split at its slashes before it is decoded, so that `a%2Fb` is one segment `a/b`: room
aliases, event types and state keys may contain slashes. Segments that do not decode to UTF-8
without NUL are refused, since identifiers are UTF-8 and PostgreSQL cannot store NUL.

Spec: https://spec.matrix.org/v1.19/appendices/#conventions-for-matrix-apis
"""

from urllib.parse import unquote_to_bytes

from homeserver.protocol.errors import InvalidParam


def split_path(path: bytes) -> list[str]:
    """The decoded segments of a raw path, without the empty one before its first slash.

    Raises `InvalidParam` if a segment is not UTF-8 or contains NUL.
    """
    if b"%" in path:
        segments = [_text(unquote_to_bytes(segment)) for segment in path.split(b"/")]
    else:
        segments = _text(path).split("/")
    return segments[1:]


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

"""`Content-Disposition`: how a client shows a file, and the file's name.

A name is written so that every HTTP client reads the same one (RFC 6266): as a token if it is one,
as a quoted string if it is ASCII, and percent-encoded (RFC 8187) otherwise. Characters that could
end the header or the line are never written as they are.

Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mediadownloadservernamemediaid
"""

import re
import unicodedata
from urllib.parse import quote, unquote_to_bytes

MAX_FILENAME = 255  # characters
_TOKEN = re.compile(r"[A-Za-z0-9!#$&+.^_`|~-]+")
_QUOTABLE = re.compile(r"[ !#-\[\]-~]+")
_ATTRIBUTE_CHARACTERS = "!#$&+-.^_`|~"
_PARAMETER = re.compile(
    r""";[ \t]*([A-Za-z0-9!#$%&'+.^_`|~-]+\*?)[ \t]*=[ \t]*"""
    r"""("(?:[^"\\]|\\.)*"|[^;"\s]*)[ \t]*"""
)
MAX_HEADER = 8_192  # characters; a longer header has no name for us
HIDDEN_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})


def normal_filename(claimed: str | None) -> str | None:
    """The name to store: without control characters and line breaks; `None` if nothing is left.

    Path separators stay, since the name is only ever shown; no file is stored under it.
    """
    if claimed is None:
        return None
    kept = [c for c in claimed if unicodedata.category(c) not in HIDDEN_CATEGORIES]
    return "".join(kept)[:MAX_FILENAME].strip() or None


def format_disposition(filename: str | None, *, inline: bool) -> str:
    """The value of the header, which is ASCII."""
    kind = "inline" if inline else "attachment"
    if filename is None:
        return kind
    if _TOKEN.fullmatch(filename):
        return f"{kind}; filename={filename}"
    if _QUOTABLE.fullmatch(filename):
        return f'{kind}; filename="{filename}"'
    encoded = quote(filename.encode("utf-8", "replace"), safe=_ATTRIBUTE_CHARACTERS)
    return f"{kind}; filename*=utf-8''{encoded}"


def filename_in(header: str | None) -> str | None:
    """The name in a header that another server sent, normalised; `None` if it has none."""
    if header is None or len(header) > MAX_HEADER:
        return None
    names: dict[str, str] = {}
    start = header.find(";")
    while start >= 0:
        parameter = _PARAMETER.match(header, start)
        if parameter is None:
            break
        names.setdefault(parameter[1].lower(), parameter[2])
        start = parameter.end()
    if (extended := names.get("filename*")) is not None:
        name = _decode_extended(extended)
        if name is not None:
            return normal_filename(name)
    plain = names.get("filename")
    if plain is None:
        return None
    if plain.startswith('"'):
        plain = re.sub(r"\\(.)", r"\1", plain[1:-1])
    return normal_filename(plain)


def _decode_extended(value: str) -> str | None:
    charset, quote_mark, rest = value.partition("'")
    _, second_mark, encoded = rest.partition("'")
    if not quote_mark or not second_mark or charset.lower() not in ("utf-8", "us-ascii"):
        return None
    try:
        return unquote_to_bytes(encoded).decode("utf-8")
    except UnicodeDecodeError:
        return None

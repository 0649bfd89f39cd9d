"""A served file: its headers, and the parts of its content that were requested.

Files are of users: a browser that shows one must not run it in the name of this server. So the type
is never guessed, only harmless types are inline, and a policy denies scripts to all of them.

Spec: https://spec.matrix.org/v1.19/client-server-api/#content-repository
"""

from typing import Self

import msgspec
from msgspec.structs import replace

from homeserver.media.files.content_store import ContentStore
from homeserver.protocol.media.byte_ranges import parse_range
from homeserver.protocol.media.content_disposition import format_disposition
from homeserver.protocol.media.content_types import UNKNOWN, may_be_inline
from homeserver.web.routes import Response, Streamed

# Beside `nosniff`, which every response has.
SECURITY_HEADERS = {
    "Content-Security-Policy": "sandbox; default-src 'none'; script-src 'none'; plugin-types"
    " application/pdf; style-src 'unsafe-inline'; object-src 'self';",
    "Cross-Origin-Resource-Policy": "cross-origin",
    "Referrer-Policy": "no-referrer",
}
CACHE_SECONDS = 86_400  # the content of an address never changes, but it may be withdrawn


class ServedFile(msgspec.Struct, frozen=True):
    """A stored content with the type and name under which it is served."""

    sha256: bytes
    size: int
    content_type: str | None
    filename: str | None

    def named(self, filename: str | None) -> Self:
        """The same file under another name."""
        return replace(self, filename=filename)

    def headers(self) -> dict[str, str]:
        """The headers that describe the file."""
        return file_headers(self.content_type or UNKNOWN, self.filename)


def file_headers(content_type: str, filename: str | None) -> dict[str, str]:
    """The headers that describe a file."""
    return {
        "Content-Type": content_type,
        "Content-Disposition": format_disposition(filename, inline=may_be_inline(content_type)),
    }


class Conditions(msgspec.Struct, frozen=True):
    """The headers of a request that decide which part of a file it gets."""

    byte_range: str | None = None
    if_range: str | None = None
    if_none_match: str | None = None


def serve_file(
    file: ServedFile, store: ContentStore, conditions: Conditions, *, is_public: bool
) -> Streamed | Response:
    """The response with a file, or with the requested range of it.

    Raises `RangeNotSatisfiable`.
    """
    tag = f'"{file.sha256.hex()}"'
    headers = {
        **file.headers(),
        **SECURITY_HEADERS,
        "ETag": tag,
        "Accept-Ranges": "bytes",
        "Cache-Control": f"{'public' if is_public else 'private'}, max-age={CACHE_SECONDS}",
    }
    if _has_tag(conditions.if_none_match, tag):
        return Response(304, b"", headers)
    byte_range = None
    if conditions.if_range in (None, tag):
        byte_range = parse_range(conditions.byte_range, file.size)
    if byte_range is None:
        parts = store.read(file.sha256, 0, file.size)
        return Streamed(parts, headers=headers, size=file.size)
    start, end = byte_range.start, byte_range.end
    headers["Content-Range"] = byte_range.content_range
    return Streamed(store.read(file.sha256, start, end), 206, headers, end - start)


def _has_tag(header: str | None, tag: str) -> bool:
    if header is None:
        return False
    tags = [given.strip().removeprefix("W/") for given in header.split(",")]
    return tag in tags or tags == ["*"]

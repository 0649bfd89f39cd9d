"""Media: the name of a file, which `mxc://` URIs spell out.

A media ID is a part of URLs, and would be one of a path if files were stored under it: only the
characters that the specification lists are accepted, and server names only if they are valid.

Spec: https://spec.matrix.org/v1.19/client-server-api/#matrix-content-mxc-uris
"""

import re
from typing import Self

import msgspec

from homeserver.protocol.errors import NotFound
from homeserver.protocol.identifiers import is_valid_server_name

_MEDIA_ID = re.compile(r"[A-Za-z0-9_-]{1,255}")
_SCHEME = "mxc://"


class MediaId(msgspec.Struct, frozen=True):
    """The name of one file: the server that has it, and the ID that this server gave it."""

    server_name: str
    media_id: str

    def __str__(self) -> str:
        return f"{_SCHEME}{self.server_name}/{self.media_id}"

    @classmethod
    def parse(cls, uri: str) -> Self:
        """The name in an `mxc://` URI. Raises `ValueError` if it is malformed."""
        server_name, _, media_id = uri.removeprefix(_SCHEME).partition("/")
        if not uri.startswith(_SCHEME) or not is_valid_media_id(media_id):
            raise ValueError(f"{uri!r} is not an mxc:// URI")
        if not is_valid_server_name(server_name):
            raise ValueError(f"{uri!r} names no valid server")
        return cls(server_name, media_id)


def is_valid_media_id(text: str) -> bool:
    """Whether a text can be a media ID."""
    return _MEDIA_ID.fullmatch(text) is not None


def parse_media_id(server_name: str, media_id: str) -> MediaId:
    """The name of a file from the segments of a path. Raises `NotFound` if it cannot exist."""
    if not is_valid_media_id(media_id) or not is_valid_server_name(server_name):
        raise NotFound("There is no such media")
    return MediaId(server_name, media_id)

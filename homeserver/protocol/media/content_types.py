"""Content types of media: what a client claims, and what a browser may show.

The type is a claim of the user or server that uploaded the file. It is passed on if it is a
well-formed one, since a browser that gets a type does not guess another (`nosniff`); whether the
file may be shown inline depends on that claim alone.

Spec: https://spec.matrix.org/v1.19/client-server-api/#serving-inline-content
"""

import re

UNKNOWN = "application/octet-stream"
MAX_LENGTH = 255  # characters

INLINE_TYPES = frozenset(
    {
        "text/css",
        "text/plain",
        "text/csv",
        "application/json",
        "application/ld+json",
        *(f"image/{name}" for name in ("jpeg", "gif", "png", "apng", "webp", "avif")),
        *(f"video/{name}" for name in ("mp4", "webm", "ogg", "quicktime")),
        *(f"audio/{name}" for name in ("mp4", "webm", "aac", "mpeg", "ogg", "wave", "wav")),
        *(f"audio/{name}" for name in ("x-wav", "x-pn-wav", "flac", "x-flac")),
    }
)

_TOKEN = r"[A-Za-z0-9!#$%&'*+.^_`|~-]+"
_TYPE = re.compile(rf"{_TOKEN}/{_TOKEN}")
_PARAMETERS = re.compile(rf'(?:[ \t]*;[ \t]*{_TOKEN}=(?:{_TOKEN}|"[ !#-\[\]-~]*"))*')


def normal_content_type(claimed: str | None) -> str:
    """The type to store for a claimed one: itself if it is well-formed, else `UNKNOWN`."""
    if claimed is None:
        return UNKNOWN
    claimed = claimed.strip(" \t")
    if len(claimed) > MAX_LENGTH:
        return UNKNOWN
    base = _TYPE.match(claimed)
    if base is None or _PARAMETERS.fullmatch(claimed, base.end()) is None:
        return UNKNOWN
    return claimed


def base_type(content_type: str) -> str:
    """The type without its parameters, in lower case."""
    return content_type.partition(";")[0].strip(" \t").lower()


def may_be_inline(content_type: str) -> bool:
    """Whether a browser may show a file of this type instead of saving it."""
    return base_type(content_type) in INLINE_TYPES

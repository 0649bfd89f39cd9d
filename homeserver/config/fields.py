"""What settings classes are made of: documented fields, and sections that keep their secrets.

A field is `name: Annotated[type, doc("One sentence.", unit="seconds", ge=0)] = default`. Sentence,
unit and bounds are read by the loader (`loading.py`) and by the generator of the reference page and
of the sample file (`reference.py`), so that they are written once.
"""

from typing import Any

import msgspec


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """A group of settings. Frozen: what a running server is configured with does not change."""

    def __repr__(self) -> str:
        # Settings hold passwords; a section that strays into a log line must not tell them.
        return f"<{type(self).__name__}>"


def doc(
    text: str,
    *,
    unit: str | None = None,
    default: str | None = None,
    example: str | None = None,
    **bounds: Any,
) -> msgspec.Meta:
    """Documentation and bounds of one field.

    `text` is one sentence, or a few; `unit` what a number counts; `default` describes a default
    that is worked out from other settings; `example` is YAML that the sample file shows commented
    out in place of an empty default. `bounds` are those of `msgspec.Meta` (`ge`, `min_length`, …).
    """
    notes = {"unit": unit, "default": default, "example": example}
    known = {name: note for name, note in notes.items() if note is not None}
    return msgspec.Meta(description=text, extra=known, **bounds)

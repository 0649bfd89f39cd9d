"""What settings classes are made of: documented fields, and sections that keep their secrets.

A field is `name: Annotated[type, doc("One sentence.", unit="seconds", ge=0)] = default`. Sentence,
unit and bounds are read by the loader (`loading.py`) and by the generator of the reference page and
of the sample file (`reference.py`), so that they are written once.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec


class Mistake(NamedTuple):
    """What is wrong with a section, in a sentence, and which of its settings it is about.

    Nothing is said of settings that are wrong by themselves already.
    """

    text: str
    settings: tuple[str, ...] = ()


class WrongSettings(ValueError):
    """Values that are right by themselves are wrong together, or for a reason of their own."""

    def __init__(self, mistakes: list[Mistake]) -> None:
        super().__init__("; ".join(mistake.text for mistake in mistakes))
        self.mistakes = mistakes


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """A group of settings. Frozen: what a running server is configured with does not change.

    Raises `WrongSettings` with all that `mistakes` finds.
    """

    def mistakes(self) -> Iterator[Mistake]:
        """All that is wrong beyond the types and bounds of single settings."""
        return iter(())

    def __post_init__(self) -> None:
        if mistakes := list(self.mistakes()):
            raise WrongSettings(mistakes)

    def __repr__(self) -> str:
        # Settings hold passwords; a section that strays into a log line must not tell them.
        return f"<{type(self).__name__}>"


def doc(
    text: str,
    *,
    unit: str | None = None,
    default: str | None = None,
    example: str | None = None,
    former_name: str | None = None,
    **bounds: Any,
) -> msgspec.Meta:
    """Documentation and bounds of one field.

    `text` is one sentence, or a few; `unit` what a number counts; `default` describes a default
    that is worked out from other settings; `example` is YAML that the sample file shows commented
    out in place of an empty default; `former_name` is what the setting was called in the last
    release, which still works, with a warning. `bounds` are those of `msgspec.Meta` (`ge`,
    `min_length`, …).
    """
    notes = {"unit": unit, "default": default, "example": example, "former_name": former_name}
    known = {name: note for name, note in notes.items() if note is not None}
    return msgspec.Meta(description=text, extra=known, **bounds)

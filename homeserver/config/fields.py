"""The parts of settings classes: documented fields, and sections that do not reveal their secrets.

A field is `name: Annotated[type, doc("One sentence.", unit="seconds", ge=0)] = default`. The loader
(`loading.py`) and the generator of the reference page and the sample file (`reference.py`) read the
sentence, unit and bounds, so that they are written once.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec


class Mistake(NamedTuple):
    """An error in a section: a sentence, and the settings that it is about.

    It is not reported if one of these settings is already wrong by itself.
    """

    text: str
    settings: tuple[str, ...] = ()


class WrongSettings(ValueError):
    """Values that are valid one by one, but not together, or that break another rule."""

    def __init__(self, mistakes: list[Mistake]) -> None:
        super().__init__("; ".join(mistake.text for mistake in mistakes))
        self.mistakes = mistakes


class Section(msgspec.Struct, frozen=True, kw_only=True):
    """A group of settings. Frozen: the settings of a running server do not change.

    Raises `WrongSettings` with all that `mistakes` yields.
    """

    def mistakes(self) -> Iterator[Mistake]:
        """The errors beyond the types and bounds of single settings."""
        return iter(())

    def __post_init__(self) -> None:
        if mistakes := list(self.mistakes()):
            raise WrongSettings(mistakes)

    def __repr__(self) -> str:
        # Settings hold passwords; a section in a log line must not reveal them.
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

    `text` is one sentence, or a few; `unit` that of a number; `default` describes a default that
    depends on other settings; `example` is YAML that the sample file shows commented out in place
    of an empty default; `former_name` is the name of the setting in the last release, which still
    works, with a warning. `bounds` are those of `msgspec.Meta` (`ge`, `min_length`, …).
    """
    notes = {"unit": unit, "default": default, "example": example, "former_name": former_name}
    known = {name: note for name, note in notes.items() if note is not None}
    return msgspec.Meta(description=text, extra=known, **bounds)

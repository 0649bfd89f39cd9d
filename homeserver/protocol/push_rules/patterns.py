"""Glob-style patterns as push rules use them: over a whole text, or over words within it.

`*` stands for any text and `?` for one character. Case makes no difference: the lower-case forms
are compared. Matching never takes longer than the text times the pattern, however many wildcards a
client writes, which a regular expression could not promise.

Spec: https://spec.matrix.org/v1.19/appendices/#glob-style-matching
"""

import re
from string import ascii_lowercase, digits
from typing import Final

_WORD: Final = frozenset(ascii_lowercase + digits + "_")  # in lower-case text


class Glob:
    """A pattern. Texts are given in lower case."""

    __slots__ = ("_parts",)

    def __init__(self, pattern: str) -> None:
        self._parts = [_Part(part) for part in pattern.lower().split("*")]

    def matches(self, text: str) -> bool:
        """Whether the pattern matches the whole text."""
        first, *others = self._parts
        if not others:
            return first.size == len(text) and first.find(text, 0) == 0
        *middle, last = others
        at, end = first.size, len(text) - last.size
        if at > end or first.find(text, 0, at) != 0 or last.find(text, end) != end:
            return False
        for part in middle:
            found = part.find(text, at, end)
            if found < 0:
                return False
            at = found + part.size
        return True

    def matches_words(self, text: str) -> bool:
        """Whether the pattern matches a part of the text that begins and ends between words.

        The first place for each part of the pattern is the best one, as any text may follow it.

        Spec: https://spec.matrix.org/v1.19/client-server-api/#conditions-1
        """
        at, last = 0, len(self._parts) - 1
        for number, part in enumerate(self._parts):
            at = _find_words(part, text, at, starts=number == 0, ends=number == last)
            if at < 0:
                return False
        return True


def contains_words(text: str, words: str) -> bool:
    """Whether words, which are no pattern, stand somewhere in a text; both in lower case."""
    return bool(words) and _find_words(_Part(words, literal=True), text, 0, True, True) >= 0


class _Part:
    """What stands between two `*`: so many characters, of which some may be any."""

    __slots__ = ("_any", "_text", "size")

    def __init__(self, text: str, *, literal: bool = False) -> None:
        self.size = len(text)
        self._text = text
        self._any: re.Pattern[str] | None = None
        if "?" in text and not literal:
            escaped = ("." if character == "?" else re.escape(character) for character in text)
            self._any = re.compile("".join(escaped), re.DOTALL)

    def find(self, text: str, at: int, end: int | None = None) -> int:
        """The first place from `at` on, so that it ends before `end`; -1 where there is none."""
        if self._any is None:
            return text.find(self._text, at, end)
        match = self._any.search(text, at, len(text) if end is None else end)
        return -1 if match is None else match.start()


def _find_words(part: _Part, text: str, at: int, starts: bool, ends: bool) -> int:
    """Where the first place of a part from `at` on ends, so that it starts and ends as it must."""
    while (found := part.find(text, at)) >= 0:
        end = found + part.size
        if (not starts or found == 0 or text[found - 1] not in _WORD) and (
            not ends or end == len(text) or text[end] not in _WORD
        ):
            return end
        at = found + 1
    return -1

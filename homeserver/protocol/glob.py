"""Glob-style patterns: `*` matches any text, even the empty one, and `?` one character.

All patterns that users, other servers and operators write are matched here: server access lists,
push rules, event filters. A regular expression backtracks: for `*a*a*a*a*b` it takes the fourth
power of a text's length. This code does not:

- Without `?` the pieces between the stars are searched one after the other. The first match
  of a piece is the best one, as any text may follow it, so no position is examined twice.
- With `?` an automaton reads a text once. Its state is an integer with one bit per position in
  the pattern (the "shift-and" algorithm), so a character costs a few operations on that integer,
  however many patterns it holds.

Matching is case-sensitive; otherwise the caller passes patterns and texts in lower case.

Spec: https://spec.matrix.org/v1.19/appendices/#glob-style-matching
"""

import re
from collections.abc import Iterable, Iterator
from string import ascii_letters, digits
from typing import Final

_WORD: Final = frozenset(ascii_letters + digits + "_")
# Marks for word boundaries. No text decoded from JSON has lone surrogates.
_START, _END = "\ud800", "\ud801"
_STARS: Final = re.compile(r"\*+")
_QUICK_TRIES: Final = 4  # positions that are examined before a text is marked
_MANY_MASKS: Final = 256  # bit masks that an automaton stores; the others are computed when needed


class Glob:
    """One compiled pattern."""

    __slots__ = ("_automaton", "_pieces", "_size", "_word_pieces")

    def __init__(self, pattern: str) -> None:
        first, *others = pattern.split("*")
        # Consecutive stars are one: there is no piece between them.
        self._pieces = [first, *filter(None, others[:-1]), *others[-1:]]
        self._size = sum(map(len, self._pieces))
        self._automaton = _Automaton([pattern]) if "?" in pattern else None
        words = [_with_marks(piece) for piece in self._pieces]
        self._word_pieces = [_START + words[0], *words[1:]]
        self._word_pieces[-1] += _END

    def matches(self, text: str) -> bool:
        """Whether the pattern matches the whole text."""
        if len(text) < self._size:
            return False
        if self._automaton is not None:
            return self._automaton.matches(text)
        first, *others = self._pieces
        if not others:
            return text == first
        *middle, last = others
        at, end = len(first), len(text) - len(last)
        if not text.startswith(first) or not text.endswith(last):
            return False
        return _find_all(middle, text, at, end)

    def matches_words(self, text: str) -> bool:
        """Whether the pattern matches a part of a text that begins and ends at word boundaries.

        Words consist of the letters A to Z, digits and underscores.

        Spec: https://spec.matrix.org/v1.19/client-server-api/#conditions-1
        """
        if len(text) < self._size:
            return False
        if self._automaton is not None:
            return self._automaton.matches_words(text)
        if len(self._pieces) == 1:
            quick = _find_words(self._pieces[0], text)
            if quick is not None:
                return quick
        elif not all(piece in text for piece in self._pieces):
            return False  # true of most messages, and fast
        return _find_all(self._word_pieces, _marked(text))


class WordText:
    """A text that is searched for plain words, such as the names of many users."""

    __slots__ = ("_marked", "_text")

    def __init__(self, text: str) -> None:
        self._text = text
        self._marked: str | None = None

    def contains(self, words: str) -> bool:
        """Whether some words are a part of a text that begins and ends at word boundaries."""
        if not words:
            return False
        quick = _find_words(words, self._text)
        if quick is not None:
            return quick
        if self._marked is None:
            self._marked = _marked(self._text)
        return f"{_START}{_with_marks(words)}{_END}" in self._marked


class GlobSet:
    """Any number of patterns, matched together: the time depends little on their number.

    `max_size` is the length of the longest text that will be matched: patterns that can only match
    longer ones are left out. If `single` is false, `?` matches only itself.
    """

    __slots__ = ("_automaton", "_exact", "_prefixes", "_suffixes")

    def __init__(self, patterns: Iterable[str], max_size: int, *, single: bool = True) -> None:
        exact, prefixes, suffixes, others = set(), set(), set(), set()
        for pattern in patterns:
            stars = pattern.count("*")
            if len(pattern) - stars > max_size:
                continue
            if stars > 1 or (single and "?" in pattern):
                others.add(_STARS.sub("*", pattern))
            elif not stars:
                exact.add(pattern)
            elif pattern.endswith("*"):
                prefixes.add(pattern[:-1])
            elif pattern.startswith("*"):
                suffixes.add(pattern[1:])
            else:
                others.add(pattern)
        self._exact = frozenset(exact)
        self._prefixes, self._suffixes = tuple(prefixes), tuple(suffixes)
        self._automaton = _Automaton(others, single=single) if others else None

    def matches(self, text: str) -> bool:
        """Whether one of the patterns matches the whole text."""
        return (
            text in self._exact
            or text.startswith(self._prefixes)
            or text.endswith(self._suffixes)
            or (self._automaton is not None and self._automaton.matches(text))
        )


class _Automaton:
    """An automaton that matches several patterns in one pass over a text.

    Each pattern has one bit more than characters that are no stars: its bit `i` is set if its first
    `i` characters match what was read. A star keeps the bit before it set.
    """

    __slots__ = ("_any", "_ends", "_masks", "_places", "_stars", "_starts")

    def __init__(self, patterns: Iterable[str], *, single: bool = True) -> None:
        self._places: dict[str, list[int]] = {}  # the bits that each character leads to
        anywhere, stars, starts, ends = [], [], [], []
        bit = 0
        for pattern in patterns:
            starts.append(bit)
            for character in pattern:
                if character == "*":
                    stars.append(bit)
                    continue
                bit += 1
                if single and character == "?":
                    anywhere.append(bit)
                else:
                    self._places.setdefault(character, []).append(bit)
            ends.append(bit)
            bit += 1
        self._any, self._stars = _bits(anywhere), _bits(stars)
        self._starts, self._ends = _bits(starts), _bits(ends)
        self._masks: dict[str, int] = {}

    def matches(self, text: str) -> bool:
        """Whether one of the patterns matches the whole text."""
        state, stars = self._starts, self._stars
        for mask in self._masks_of(text):
            state = (state << 1) & mask | state & stars
            if not state:
                return False
        return state & self._ends != 0

    def matches_words(self, text: str) -> bool:
        """Whether one of the patterns matches a part of a text between word boundaries."""
        state, stars, starts, ends = 0, self._stars, self._starts, self._ends
        was_word = False
        for character, mask in zip(text, self._masks_of(text), strict=True):
            if not was_word:
                state |= starts
            was_word = character in _WORD
            if not was_word and state & ends:
                return True
            if state:
                state = (state << 1) & mask | state & stars
        if not was_word:
            state |= starts
        return state & ends != 0

    def _masks_of(self, text: str) -> Iterator[int]:
        """For each character, the bits that it may lead to."""
        masks = self._masks
        for character in text:
            mask = masks.get(character)
            if mask is None:
                mask = self._any | _bits(self._places.get(character, ()))
                if len(masks) < _MANY_MASKS:
                    masks[character] = mask
            yield mask


def _bits(places: Iterable[int]) -> int:
    """The number that has ones at these places, which are in ascending order."""
    places = list(places)
    if not places:
        return 0
    octets = bytearray(places[-1] // 8 + 1)
    for place in places:
        octets[place >> 3] |= 1 << (place & 7)
    return int.from_bytes(octets, "little")


def _find_all(pieces: Iterable[str], text: str, at: int = 0, end: int | None = None) -> bool:
    """Whether the pieces are in `text` between `at` and `end`, in this order."""
    if end is not None and at > end:
        return False
    for piece in pieces:
        found = text.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True


def _find_words(words: str, text: str) -> bool | None:
    """Whether some words are in a text, by their first occurrences; `None` if undecided."""
    at = text.find(words)
    for _ in range(_QUICK_TRIES):
        if at < 0:
            return False
        end = at + len(words)
        if (at == 0 or text[at - 1] not in _WORD) and (end == len(text) or text[end] not in _WORD):
            return True
        at = text.find(words, at + 1)
    return None


def _with_marks(text: str) -> str:
    """A text in which each character outside of words is surrounded by marks.

    A word may end before it, and another start after it. Each character is replaced in the same way
    everywhere, so a part of a text is still one with marks: word boundaries can be searched like
    any other character.
    """
    return "".join([each if each in _WORD else f"{_END}{each}{_START}" for each in text])


def _marked(text: str) -> str:
    """A whole text with marks, also at its start and end, where a word may start and end."""
    return f"{_START}{_with_marks(text)}{_END}"

"""The words of a text, as the search index has them, whatever its language.

A text is normalised first: NFKC and case folding, so that wide and narrow forms and all cases are
one. A word is a run of letters, digits and marks. Scripts that are written without spaces between
words have no words to cut: a run of Han, Kana, Hangul, Thai and the like becomes its overlapping
pairs of characters, and its last character alone. So each character begins a token, any two
characters that follow each other are one, and no dictionary is needed. There is no stemming, which
would need to know the language.

All work is linear in the length of the text, of which `MAX_TEXT` characters count.

Spec: https://spec.matrix.org/v1.19/client-server-api/#server-side-search
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final, NamedTuple

MAX_TEXT: Final = 16_384  # characters of a text, before and after its normalisation
MAX_PART: Final = 1_024  # characters that are normalised together
MAX_WORD: Final = 64  # characters of a word; the rest is cut off
MAX_TOKENS: Final = 4_000  # of a text

# The blocks of scripts without spaces, of which only letters, digits and marks count.
_BLOCKS = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Burmese
    (0x1100, 0x11FF),  # Hangul letters
    (0x1780, 0x17FF),  # Khmer
    (0x3005, 0x3007),  # repetition of Han characters
    (0x3041, 0x318F),  # Kana, Bopomofo, Hangul letters
    (0x31A0, 0x31FF),
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),
    (0xA960, 0xA97F),  # Hangul
    (0xAC00, 0xD7FF),
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFD),
)
_MARKED_UPTO = 0x1FFFF  # above it are no marks, except selectors of variants
_INVISIBLE = dict.fromkeys((0x00AD, 0x200C, 0x200D, 0x2060, 0xFEFF, *range(0xFE00, 0xFE10)))


def _ranges(code_points: Iterable[int]) -> str:
    """The inside of a character class for code points in ascending order."""
    parts: list[list[int]] = []
    for code_point in code_points:
        if parts and parts[-1][1] == code_point - 1:
            parts[-1][1] = code_point
        else:
            parts.append([code_point, code_point])
    return "".join(f"\\U{low:08x}-\\U{high:08x}" for low, high in parts)


def _is_marked(code_point: int) -> bool:
    return unicodedata.category(chr(code_point))[0] == "M"


def _is_in_words(code_point: int) -> bool:
    return unicodedata.category(chr(code_point))[0] in "LNM"


_MARKS = _ranges(filter(_is_marked, range(0x300, _MARKED_UPTO)))
_UNSPACED = "".join(
    f"\\U{low:08x}-\\U{high:08x}"
    if low >= 0x3400
    else _ranges(filter(_is_in_words, range(low, high + 1)))
    for low, high in _BLOCKS
)
_ASCII_WORD = re.compile(r"[a-z0-9]+")
_WORD = re.compile(rf"[\w{_MARKS}]+")
_PART = re.compile(rf"(?P<unspaced>[{_UNSPACED}]+)|[^{_UNSPACED}]+")
# Normalisation sorts marks that follow each other, which takes quadratic time: no text needs more.
_TOO_MANY_MARKS = re.compile(rf"([{_MARKS}]{{30}})[{_MARKS}]+")


class Run(NamedTuple):
    """A word, or a run of characters of a script without spaces."""

    text: str
    is_unspaced: bool = False


def normalised(text: str) -> str:
    """A text as it is compared: without differences of form and of case."""
    text = text[:MAX_TEXT]
    if text.isascii():
        return text.lower().replace("_", " ")
    text = _TOO_MANY_MARKS.sub(r"\1", text.translate(_INVISIBLE))
    folded = _compatible(text).casefold()[:MAX_TEXT]
    return unicodedata.normalize("NFKC", folded)[:MAX_TEXT].replace("_", " ")


def _compatible(text: str) -> str:
    """The first `MAX_TEXT` characters of NFKC, except that two parts are not composed here.

    Some characters become eighteen: no more of them are normalised than count.
    """
    if len(text) <= MAX_PART:
        return unicodedata.normalize("NFKC", text)[:MAX_TEXT]
    parts: list[str] = []
    size = 0
    for start in range(0, len(text), MAX_PART):
        part = unicodedata.normalize("NFKC", text[start : start + MAX_PART])
        parts.append(part)
        size += len(part)
        if size >= MAX_TEXT:
            break
    return "".join(parts)[:MAX_TEXT]


def runs(text: str) -> Iterator[Run]:
    """The words of a normalised text, in their order."""
    if text.isascii():
        yield from map(Run, _ascii_words(text))
        return
    for word in _WORD.findall(text):
        for part in _PART.finditer(word):
            if part["unspaced"] is not None:
                yield Run(part[0], is_unspaced=True)
            else:
                yield Run(part[0][:MAX_WORD])


def surface_words(text: str) -> Iterator[str]:
    """The words of a text as it has them, not normalised and not cut."""
    for word in _WORD.findall(text[:MAX_TEXT].replace("_", " ")):
        for part in _PART.finditer(word):
            yield part[0]


def pairs(run: str) -> Iterator[str]:
    """The overlapping pairs of characters of a run."""
    for place in range(len(run) - 1):
        yield run[place : place + 2]


def tokens(text: str) -> Iterator[str]:
    """What the index has of a normalised text, in the order of the text."""
    for run, is_unspaced in runs(text):
        if is_unspaced:
            yield from pairs(run)
            yield run[-1]
        else:
            yield run


def indexed_tokens(text: str) -> list[str]:
    """What the index has of a text, which is not normalised yet: at most `MAX_TOKENS`."""
    text = normalised(text)
    # Most texts are in ASCII, and each message of a server comes by here.
    if text.isascii():
        return _ascii_words(text)[:MAX_TOKENS]
    return list(islice(tokens(text), MAX_TOKENS))


def _ascii_words(text: str) -> list[str]:
    return [word[:MAX_WORD] for word in _ASCII_WORD.findall(text)]

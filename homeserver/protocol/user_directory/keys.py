"""Keys of the user directory: the texts by whose beginnings a user is found.

Names and search terms are *folded* alike: without case and accents, and with one space in place of
everything that is neither letter, digit nor symbol. A key begins at a word of a folded name, and
goes on to its end: so a term that is a beginning of a key is one or more words of the name, of
which the last may be unfinished. Scripts that are written without spaces have a key for each
character, so any part of a name is found. The key at which a name begins has a mark before it, as
its users are shown first.

A user id is a name too, with a mark of its own: its keys begin in the localpart, and go on through
the server name.

Spec: https://spec.matrix.org/v1.19/client-server-api/#user-directory
"""

import re
import unicodedata
from collections.abc import Iterator

# Marks, which no folded text has.
NAME = "^"
USER_ID = "@"
MAX_NAME = 256  # characters of a name, or of a term, that are looked at
MAX_KEY = 64  # characters
MAX_KEYS = 24  # of one name

_ASCII_WORD = re.compile("[a-z0-9]+")
# Letters that do not decompose into a base letter and a mark.
_LETTERS = str.maketrans(
    {"ø": "o", "ł": "l", "đ": "d", "ħ": "h", "ŧ": "t", "ı": "i", "æ": "ae", "œ": "oe", "þ": "th"}
)
# First and last characters of the scripts that are written without spaces.
_UNSPACED = (
    ("\u0e00", "\u0eff"),  # Thai, Lao
    ("\u1000", "\u109f"),  # Myanmar
    ("\u1100", "\u11ff"),  # Hangul Jamo
    ("\u1780", "\u17ff"),  # Khmer
    ("\u3040", "\u31ff"),  # Hiragana, Katakana, Bopomofo
    ("\u3400", "\u9fff"),  # Han
    ("\ua960", "\ua97f"),  # Hangul Jamo
    ("\uac00", "\ud7ff"),  # Hangul
    ("\uf900", "\ufaff"),  # Han
    ("\U00020000", "\U0003ffff"),  # Han
)


def fold(text: str) -> str:
    """A text as it is compared; empty if nothing in it can be searched for."""
    text = text[:MAX_NAME]
    if text.isascii():
        return " ".join(_ASCII_WORD.findall(text.lower()))  # the same, ten times as fast
    decomposed = unicodedata.normalize("NFKD", text)
    folded = unicodedata.normalize("NFKD", decomposed.casefold())
    kept = "".join(
        character if _is_word(character) else " "
        for character in folded
        if not _is_accent(character)
    )
    return " ".join(unicodedata.normalize("NFC", kept).translate(_LETTERS).split())


def keys_of(user_id: str, display_name: str | None) -> list[str]:
    """The keys of a user, without doubles."""
    localpart, _, server = user_id.removeprefix("@").partition(":")
    keys = dict.fromkeys(_keys(USER_ID, fold(localpart), f" {fold(server)}"))
    if display_name:
        keys |= dict.fromkeys(_keys(NAME, fold(display_name)))
    return list(keys)


def _keys(mark: str, name: str, rest: str = "") -> Iterator[str]:
    """The keys of a folded name, which `rest` follows."""
    if not name:
        return
    yield mark + (name + rest)[:MAX_KEY]
    count = 1
    for place in range(1, len(name)):
        if _begins_word(name[place - 1], name[place]):
            yield (name[place:] + rest)[:MAX_KEY]
            count += 1
            if count == MAX_KEYS:
                return


def _begins_word(before: str, character: str) -> bool:
    if character == " ":
        return False
    return before == " " or _is_unspaced(character) or _is_unspaced(before)


def _is_unspaced(character: str) -> bool:
    """Whether a character is a letter of a script without spaces: a word may begin at it."""
    return (
        character >= "\u0e00"
        and any(first <= character <= last for first, last in _UNSPACED)
        and unicodedata.category(character)[0] == "L"
    )


def _is_word(character: str) -> bool:
    """Letters, marks, numbers, and symbols such as emoji; no punctuation."""
    category = unicodedata.category(character)
    return category[0] in "LMN" or category == "So"


def _is_accent(character: str) -> bool:
    """Marks that a writer may leave out: accents, and the points of Hebrew and Arabic.

    Others are parts of the letter, such as the vowels of Indic scripts, and the voicing of kana.
    """
    place = unicodedata.combining(character)
    return place >= 200 or 10 <= place <= 35

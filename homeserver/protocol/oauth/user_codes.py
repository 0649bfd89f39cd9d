"""User codes of the device authorisation grant: read on one device, and typed on another.

Eight letters of twenty: no vowels, so that they form no words, and none that look alike. They are
written as `WDJB-MJHT`, and typed in any way.

Source: https://datatracker.ietf.org/doc/html/rfc8628#section-6.1
"""

from typing import Final

ALPHABET: Final = "BCDFGHJKLMNPQRSTVWXZ"
LENGTH: Final = 8


def parse_user_code(typed: str) -> str | None:
    """The letters of a code that a user typed, or `None` if it is none."""
    if len(typed) > 64:
        return None
    letters = "".join(letter for letter in typed.upper() if letter.isalnum())
    is_code = len(letters) == LENGTH and all(letter in ALPHABET for letter in letters)
    return letters if is_code else None


def show_user_code(letters: str) -> str:
    """The letters of a code as the user reads them."""
    return f"{letters[: LENGTH // 2]}-{letters[LENGTH // 2 :]}"

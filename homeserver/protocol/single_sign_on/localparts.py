"""The localpart of a new account, from the name of a user at an identity provider.

Spec: https://spec.matrix.org/v1.19/appendices/#mapping-from-other-character-sets
"""

_ALLOWED = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789._-/+")


def map_localpart(name: str) -> str:
    """A name in the characters of user ids: lower case, other bytes as `=` and two digits.

    Two names that differ only in case have the same localpart. It may be too long.
    """
    lowered = "".join(chr(ord(each) + 32) if "A" <= each <= "Z" else each for each in name)
    return "".join(
        chr(byte) if byte in _ALLOWED else f"={byte:02x}"
        for byte in lowered.encode("utf-8", "replace")
    )


def suggest_localpart(name: str) -> str:
    """A name with only the simple characters of user ids, for a user to confirm or change."""
    lowered = name.strip().lower().replace(" ", ".")
    return "".join(each for each in lowered if each.isascii() and ord(each) in _ALLOWED)[:100]

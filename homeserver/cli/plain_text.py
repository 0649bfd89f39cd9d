"""Untrusted text, escaped for a terminal."""


def plain(text: str) -> str:
    """Escape all characters that are not printable.

    Names of events, rooms and users may contain anything: colours, window titles, line ends, marks
    that change the writing direction.
    """
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )

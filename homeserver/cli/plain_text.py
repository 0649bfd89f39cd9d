"""What others wrote, made fit to be shown in a terminal."""


def plain(text: str) -> str:
    """The text with everything escaped that does not print as itself.

    Names of events, rooms and users are whatever a stranger liked: colours, titles of windows, line
    ends, marks that turn the direction of reading.
    """
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )

"""The order in which the user directory shows the users whom a term finds.

Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3user_directorysearch
"""

import msgspec

from homeserver.protocol.user_directory.keys import fold

Rank = tuple[int, bool, bool, int, str]

MAX_TERM = 64  # characters of a folded term, which is no longer than a key


class FoundUser(msgspec.Struct, frozen=True):
    """A user whom a search found. `is_shared`: in a room that the searcher is in, too."""

    user_id: str
    display_name: str | None
    avatar_url: str | None
    is_shared: bool


class DirectoryTerm(msgspec.Struct, frozen=True):
    """A term, folded; `is_id` says that it was written as a user id, with `@`."""

    text: str
    is_id: bool

    @classmethod
    def parse(cls, term: str) -> "DirectoryTerm":
        """The term that a user has written; any text is one."""
        return cls(fold(term)[:MAX_TERM].rstrip(), term.lstrip().startswith("@"))

    @property
    def words(self) -> list[str]:
        """The words of the term, the longest first: it is the one that finds the fewest."""
        return sorted(set(self.text.split()), key=lambda word: (-len(word), word))


def rank(term: DirectoryTerm, user: FoundUser, server_name: str) -> Rank:
    """The place of a user in the order, less is better.

    First those whose name or localpart is the term, then those whose name, or user id, begins with
    it; among them those who share a room with the searcher, those of this server, and those with a
    name and an avatar.
    """
    localpart, _, server = user.user_id.removeprefix("@").partition(":")
    local = fold(localpart)
    full_id = f"{local} {fold(server)}"
    name = "" if user.display_name is None or term.is_id else fold(user.display_name)
    if term.text in (name, local, full_id):
        match = 0
    elif name.startswith(term.text) or full_id.startswith(term.text):
        match = 1
    else:
        match = 2
    missing = (user.display_name is None) + (user.avatar_url is None)
    return (match, not user.is_shared, server != server_name, missing, user.user_id)

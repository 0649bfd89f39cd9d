"""Settings of the user directory."""

from typing import Annotated

from homeserver.config.fields import Section, doc


class UserDirectorySettings(Section, frozen=True, kw_only=True):
    """The search for users by their names."""

    enabled: Annotated[bool, doc("Let users search for others; otherwise nobody is found.")] = True
    search_all_users: Annotated[
        bool,
        doc(
            "Show all users of this server to each other; otherwise only those who are in a room"
            " of the searcher, or in a public one."
        ),
    ] = False

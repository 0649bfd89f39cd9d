"""The settings of the server-side search."""

from typing import Annotated

from homeserver.config.fields import Section, doc


class SearchSettings(Section, frozen=True, kw_only=True):
    """The search of messages, room names and topics on the server."""

    enabled: Annotated[
        bool,
        doc(
            "Offer the search, and keep an index of the words of all unencrypted messages. Without"
            " it no index is kept; what is missing is added once it is enabled again."
        ),
    ] = True

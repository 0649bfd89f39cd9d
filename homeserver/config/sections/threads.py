"""The settings of threads."""

from typing import Annotated

from homeserver.config.fields import Section, doc


class ThreadSettings(Section, frozen=True, kw_only=True):
    """Threads, the conversations within a room."""

    subscriptions: Annotated[
        bool,
        doc(
            "Let users subscribe to threads (MSC4306). Then a message in a thread notifies those"
            " who have subscribed and those whom it mentions, and nobody else: users whose"
            " clients do not know subscriptions miss the rest."
        ),
    ] = False

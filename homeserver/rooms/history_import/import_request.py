"""What an application service asks for when it imports history, and who may ask."""

from collections.abc import Sequence
from typing import Protocol

import msgspec

from homeserver.rooms.events.imported_events import OldMessage


class Importer(Protocol):
    """The application service behind a request, whose registration permits imports.

    `id` is that of its registration.
    """

    @property
    def id(self) -> str: ...

    def covers_user(self, user_id: str) -> bool:
        """Whether it may act as this user: it is its own sender, or in one of its namespaces."""


class ImportRequest(msgspec.Struct, frozen=True):
    """Old messages, oldest first, and where they are inserted.

    Without an option that is before the first message of the room. `before` is the id of another
    event to insert them before. `forward` puts them at the end, where syncs show them;
    `forward_if_empty` does so in a room without messages. `notify`: messages at the end notify like
    others. `mark_read_by` is a user who has read messages at the end.
    """

    messages: Sequence[OldMessage]
    before: str | None = None
    forward: bool = False
    forward_if_empty: bool = False
    notify: bool = False
    mark_read_by: str | None = None

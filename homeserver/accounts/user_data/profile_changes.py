"""Recent changes of profiles, for the clients that are sent the profiles of other users.

The last change of each field is kept in the order of publication, so that "what changed since this
token" costs as much as there is new. Older ones are read from the database.

Spec: https://spec.matrix.org/v1.19/client-server-api/#profiles
"""

from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

from homeserver.accounts.user_data.profiles import ProfileChanged
from homeserver.storage.accounts.profiles import shared_profile_changes
from homeserver.storage.database.database import Database
from homeserver.streams.log import Log
from homeserver.streams.recent_changes import RecentChanges
from homeserver.streams.sync_tokens import SyncToken

MAX_CHANGES = 20_000  # fields whose last change is in memory

ProfileFields = Collection[str] | None
"""Names of fields; `None` for all."""


class FieldChange(NamedTuple):
    """The last change of a field: it was set or removed at a position of the log."""

    user_id: str
    field: str
    position: int


class ProfileChanges:
    """The changes of the profiles of local users. `apply` is to be subscribed to the log."""

    def __init__(self, db: Database, log: Log) -> None:
        self._db = db
        self._changes: RecentChanges[tuple[str, str], int] = RecentChanges(
            MAX_CHANGES, log.position
        )

    def apply(self, entries: Sequence[Any]) -> None:
        """Note the changes of a batch (called by the log)."""
        for entry in entries:
            if isinstance(entry, ProfileChanged):
                self._changes.put((entry.user_id, entry.field), entry.position, entry.position)

    def are_in_memory(self, token: SyncToken) -> bool:
        """Whether all changes above a token are."""
        return token.base >= self._changes.floor

    def recent(self, token: SyncToken, fields: ProfileFields) -> Iterator[FieldChange]:
        """The changes above a token, which must all be in memory, of all users."""
        for (user_id, field), position in self._changes.above(token.base):
            change = FieldChange(user_id, field, position)
            if _is_wanted(change, token, fields):
                yield change

    async def stored(
        self, user_id: str, rooms: Collection[int], token: SyncToken, fields: ProfileFields
    ) -> list[FieldChange]:
        """The changes above a token of a user and of those who are joined to one of the rooms."""
        rows = await self._db.run(shared_profile_changes, user_id, list(rooms), token.base)
        changes = (FieldChange(*row) for row in rows)
        return [change for change in changes if _is_wanted(change, token, fields)]


def _is_wanted(change: FieldChange, token: SyncToken, fields: ProfileFields) -> bool:
    return (fields is None or change.field in fields) and change.position > token.of_user(
        change.user_id
    )

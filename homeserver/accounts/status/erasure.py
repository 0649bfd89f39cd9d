"""Erased users: later members of a room see their events as if they were redacted.

A user who deactivates an account may request erasure. There are few such users and every event of a
timeline is checked by its sender, so all of them are kept in memory, and a look-up costs one hash.

Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3accountdeactivate
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from homeserver.storage.accounts.users import erased_users
from homeserver.storage.database.database import Database
from homeserver.streams.log import Log


class UserErased(msgspec.Struct, frozen=True):
    """A deactivated user requested erasure, which the database has recorded with the account."""

    position: int
    user_id: str


class ErasedUsers:
    """The erased users of this server. `load` it before the first request.

    `apply` is to be subscribed to the log.
    """

    def __init__(self, db: Database, log: Log) -> None:
        self._db = db
        self._log = log
        self._users: set[str] = set()

    def __contains__(self, user_id: str) -> bool:
        return user_id in self._users

    def __bool__(self) -> bool:
        """Whether there is any: without erased users no event need be checked."""
        return bool(self._users)

    async def load(self) -> None:
        """Load the users that were erased before this start of the server."""
        self._users.update(await self._db.run(erased_users))

    def apply(self, entries: Sequence[Any]) -> None:
        """Add the users who were erased (called by the log)."""
        self._users.update(entry.user_id for entry in entries if isinstance(entry, UserErased))

    async def deactivated(self, user_id: str, erase: bool) -> None:
        """Publish that a deactivated user is erased, if they requested that."""
        if erase:
            await self._log.append(UserErased(self._log.next_position(), user_id))
